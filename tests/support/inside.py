"""Where tests reach inside a connection, which users never do."""

from __future__ import annotations

from typing import Any

__all__ = ["transport_of", "wire_of"]


def wire_of(held: Any) -> Any:
    """Return the wire behind a connection or a stream, of either flavour."""
    return held._wire


def transport_of(held: Any) -> Any:
    """Return the driver of a connection or a stream, of either flavour."""
    return wire_of(held).transport
