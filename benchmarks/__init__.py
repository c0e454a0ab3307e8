"""How much CPU a message costs, in pgrepl and in its peers, on one captured stream.

Law: a benchmark measures and prints, it never asserts. What is compared was measured in the same
run, on the same bytes, by turns; the figure to quote is a ratio, for seconds belong to one machine
and one hour. README.md tells how each figure comes about.
"""
