"""Highly available instances of a whole service under faults, with clients that never stop writing."""
