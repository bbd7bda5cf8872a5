"""Half an hour of random calls and kills, of which nothing may be left: `make soak`."""
