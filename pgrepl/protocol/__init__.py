"""Room 2, conversations: what client and server say to each other, without any I/O.

A conversation is a generator: it yields a request (`Send`, `Receive`, `ReceiveByte`, `StartTLS`),
is sent the answer, and returns its result. Whoever drives it owns the socket, the clock and the
time limit; a conversation that was left alone half-way can be gone on with later.
"""
