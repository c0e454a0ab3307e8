"""Sockets, TLS, threads and time for callers who wait: the same files as in `aio`, under the same names."""
