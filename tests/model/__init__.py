"""The parts of a stream put together against a simulated server, in virtual time."""
