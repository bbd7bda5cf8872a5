"""python -m openrdb."""

from openrdb.cli import main

main()
