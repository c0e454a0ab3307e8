"""The package's own artefacts: what they carry, and that they install and work."""
