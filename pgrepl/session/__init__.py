"""Room 3, the stream's state: what was received, what may be reported, how a stream ends.

Sans-io: whole messages go in by way of the codec's reader, the clock is passed in.
"""
