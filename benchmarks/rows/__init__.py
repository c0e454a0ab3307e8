"""Part two, the rows: what it costs to turn a pgoutput payload into a row of Python values.

Law: everybody gets the same payloads from memory, and nobody is measured whose first rows are not
what the table's definition says.
"""
