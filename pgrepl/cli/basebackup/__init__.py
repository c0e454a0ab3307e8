"""`pgrepl basebackup`: a base backup into a directory, and how far it has come."""
