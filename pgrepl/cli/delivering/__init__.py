"""What `stream` and `demo` share: whence changes come, how they are handed on, and where to."""
