"""`pgrepl stream`: a slot's changes to standard output or a file, as text, JSON or as they came."""
