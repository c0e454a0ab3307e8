"""The tests of pgrepl: `unit` and `parity` need no server, `live` does, `build` makes packages."""
