"""Live tests: pgrepl against real servers, one old major version and one new, on both twins."""
