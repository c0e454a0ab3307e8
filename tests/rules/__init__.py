"""The rules of docs/security.md, each taken out of the code: `python -m tests.rules`."""
