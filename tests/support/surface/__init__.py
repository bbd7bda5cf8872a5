"""The whole surface of the API as the official SDK has it, what a run of the tests tried of it, and
`docs/api.md`, which is made of both."""
