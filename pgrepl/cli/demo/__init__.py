"""`pgrepl demo`: a throw-away server, a workload, what was streamed of it, and whether that is all."""
