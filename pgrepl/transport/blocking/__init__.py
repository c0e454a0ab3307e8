"""Sockets, TLS, threads and time for callers who wait: the same files as in `aio`, same names."""
