"""The documentation's site: pages that are made of the sources, and of Markdown as GitHub has it."""
