"""The pages, one module a resource: each shows what the API answers, and its forms ask the API."""
