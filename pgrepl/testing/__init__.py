"""A PostgreSQL server to try things on, for as long as it is needed.

Law: nothing of it is left behind. Importing this room needs neither pytest nor what the program
needs.
"""
