"""The host agent: one process a host, and how the control plane speaks to it."""
