"""Part three, live: whole programs on a real server, in wall time, and asyncio beside blocking.

Law: everybody drains the same WAL through a slot of its own that was made before the load, and
nobody is measured who has not seen the last commit of it. Wall time on a real server is mostly the
server's, so it is given as a ratio to the bare drain of the same round.
"""
