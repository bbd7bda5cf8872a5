"""Bundles: installed engine versions in the user's cache, and where they come from."""
