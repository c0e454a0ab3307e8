"""What was asked of the server, as far as it decides how a pgoutput message has to be read.

No message tells its version. The server speaks the one that START_REPLICATION named, or the SQL
function, and a decoder has to be told the same.

Source: PostgreSQL documentation, "Logical Streaming Replication Parameters".
"""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["Dialect"]

# The lowest version in which the server takes each value of the option `streaming`.
_STREAMING_SINCE: Final = {"off": 1, "on": 2, "parallel": 4}
_NEWEST: Final = 4


class Dialect(NamedTuple):
    """`parallel`: whether a StreamAbort tells its position and time, which no version decides."""

    proto_version: int
    parallel: bool

    @classmethod
    def of(cls, proto_version: int, streaming: str) -> Dialect:
        """Return the dialect of the server's options `proto_version` and `streaming`.

        Raises `ValueError` for what no server speaks.
        """
        if proto_version not in range(1, _NEWEST + 1):
            raise ValueError(
                f"expected a pgoutput protocol version from 1 to {_NEWEST}, got {proto_version!r}"
            )
        if streaming not in tuple(_STREAMING_SINCE):
            raise ValueError(f"expected streaming 'off', 'on' or 'parallel', got {streaming!r}")
        since = _STREAMING_SINCE[streaming]
        if proto_version < since:
            raise ValueError(
                f"expected pgoutput protocol version {since} or later for streaming "
                f"{streaming!r}, got {proto_version!r}"
            )
        return cls(int(proto_version), streaming == "parallel")
