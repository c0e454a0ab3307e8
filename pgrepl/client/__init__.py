"""What both flavours of the API are made of; users import what `blocking` and `aio` make of it."""
