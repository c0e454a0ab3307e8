"""What `stream` and `demo` share: where changes come from, how they are handed on, and where they go."""
