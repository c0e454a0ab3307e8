"""What a message of a stream, a row and a whole program cost, in pgrepl and in its peers.

Law: a benchmark measures and prints, it never asserts. What is compared was measured in the same
run, on the same bytes, by turns; the figure to quote is a ratio, for seconds belong to one machine
and one hour. README.md tells how each figure comes about.
"""
