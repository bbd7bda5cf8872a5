"""Status machines: one module a resource, each with its statuses, moves and requests."""
