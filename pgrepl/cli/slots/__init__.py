"""``pgrepl slots``: the replication slots of a server, listed, made, altered, moved and dropped."""
