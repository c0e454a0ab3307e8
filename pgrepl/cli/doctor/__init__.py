"""``pgrepl doctor``: whether a server is ready for logical replication, and what mends it.

Law: it only looks. What would change anything is printed, as SQL that somebody else may run.
"""
