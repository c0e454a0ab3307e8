from typing import Any, final

from ...messages import LogicalMessage

__all__ = ["Decoder"]

@final
class Decoder:
    def __init__(self, proto_version: int = 1, streaming: str = "off") -> None: ...
    def feed(self, payload: Any, lsn: int | None = None) -> LogicalMessage: ...
