"""Sockets, TLS and time in an event loop: the same files as in `blocking`, same names."""
