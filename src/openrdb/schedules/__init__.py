"""Periodic rounds of the control plane."""
