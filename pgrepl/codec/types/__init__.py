"""How the values of each type are made of the bytes that are sent for them.

The native twin reads the types that tables are made of by itself; all else, and every value that is
beyond those, it leaves to this room, and the pure twin leaves it everything. Nothing here is loaded
before a decoder is made.
"""
