"""`pgrepl demo`: a throw-away server, a workload, and whether what was streamed is all of it."""
