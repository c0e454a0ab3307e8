"""The requests that a conversation makes of its driver."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, final

__all__ = [
    "RECEIVE",
    "Conversation",
    "Exchange",
    "Frame",
    "Receive",
    "ReceiveByte",
    "Request",
    "Send",
    "StartTLS",
]

Frame: TypeAlias = tuple[bytes, bytes]
"""A message's tag, one byte, and its body."""


@final
class Send:
    """Send these bytes. Shows their number only: they may hold a password."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data: Final = data

    def __repr__(self) -> str:
        return f"Send(<{len(self.data)} bytes>)"


@final
class Receive:
    """Wait for the next message; the answer is a `Frame`."""


@final
class ReceiveByte:
    """Read exactly one byte, which is no message, and nothing behind it; the answer is `bytes`."""


@final
class StartTLS:
    """Begin TLS on the connection; the answer comes when it is established."""


RECEIVE: Final = Receive()

Request: TypeAlias = Send | Receive | ReceiveByte | StartTLS

_Result = TypeVar("_Result")
Conversation: TypeAlias = Generator[Request, Any, _Result]


@final
class Exchange(Generic[_Result]):
    """A conversation under way: the request it waits for, or its result.

    It keeps its place, so a driver that ran out of time can go on with it later.
    """

    __slots__ = ("_conversation", "_result", "request")

    def __init__(self, conversation: Conversation[_Result]) -> None:
        self._conversation = conversation
        self._result: _Result | None = None
        self.request: Request | None = None
        self.answer(None)

    def answer(self, reply: object) -> None:
        """Give the answer to `request`, and take the next one: None when the conversation is over.

        Raises what the conversation raises.
        """
        try:
            self.request = self._conversation.send(reply)
        except StopIteration as end:
            self.request = None
            self._result = end.value
        except BaseException:
            self.request = None
            raise

    @property
    def result(self) -> _Result:
        """What the conversation returned, once `request` is None."""
        return cast(_Result, self._result)
