"""What the tests stand on: real servers, a scripted one, a proxy, and a test CA.

Nothing in here but the throw-away cluster uses pgrepl's own code: what the tests compare pgrepl
with must not share its mistakes.
"""
