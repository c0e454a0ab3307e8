"""Room 4, the outside world: sockets, TLS, threads, the clock, the environment.

No other room of the library imports these.
"""
