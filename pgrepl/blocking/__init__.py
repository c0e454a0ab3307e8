"""The blocking flavour of the API: the same files as in `aio`, under the same names."""
