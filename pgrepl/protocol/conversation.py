"""The requests that a conversation makes of its driver."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from functools import partial
from typing import Any, Final, Generic, TypeAlias, TypeVar, cast, final

__all__ = [
    "RECEIVE",
    "Compute",
    "Conversation",
    "Exchange",
    "Frame",
    "PeerCertificate",
    "Receive",
    "ReceiveByte",
    "Request",
    "Send",
    "StartTLS",
    "Steps",
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


@final
class PeerCertificate:
    """Look up the certificate that the server showed in the TLS handshake; the answer is its DER
    form, or None without TLS."""


@final
class Compute:
    """Call this, which takes long; the answer is what it returns, and what it raises is raised.

    An event loop has it called in another thread.
    """

    __slots__ = ("call",)

    def __init__(self, call: Callable[[], Any]) -> None:
        self.call: Final = call


RECEIVE: Final = Receive()

Request: TypeAlias = Send | Receive | ReceiveByte | StartTLS | PeerCertificate | Compute

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")
Conversation: TypeAlias = Generator[Request, Any, _Result]


class Steps(Generic[_Request, _Result]):
    """A generator of requests under way: the request it waits for, or its result.

    `run` and `run_async` drive it to its end in the two flavours; who carries requests out in other
    ways gives the answers one by one.
    """

    __slots__ = ("_generator", "_result", "request")

    def __init__(self, generator: Generator[_Request, Any, _Result]) -> None:
        self._generator = generator
        self._result: _Result | None = None
        self.request: _Request | None = None
        self.answer(None)

    def answer(self, reply: object) -> None:
        """Give the answer to `request`, and take the next one: None when all is over.

        Raises what the generator raises.
        """
        self._go_on(lambda: self._generator.send(reply))

    def fail(self, error: Exception) -> None:
        """Raise an error in the generator in place of an answer, and take the next request.

        Raises what the generator raises.
        """
        self._go_on(lambda: self._generator.throw(error))

    def answer_by(self, call: Callable[[], object]) -> None:
        """Give the answer that this returns, or raise in the generator what it raises.

        Raises what the generator raises.
        """
        failure: Exception | None = None
        reply: object = None
        try:
            reply = call()
        except Exception as error:
            failure = error
        self._answer_or_fail(reply, failure)

    async def answer_when_done(self, reply_to_come: Awaitable[object]) -> None:
        """Await the answer and give it, or raise in the generator what is raised there.

        A cancellation is no answer: the generator goes on waiting for one. Raises what the
        generator raises.
        """
        failure: Exception | None = None
        reply: object = None
        try:
            reply = await reply_to_come
        except Exception as error:
            failure = error
        self._answer_or_fail(reply, failure)

    def run(self, carry_out: Callable[[_Request], object]) -> _Result:
        """Have each request carried out, until the generator has come to its end.

        What `carry_out` returns is the answer; an `Exception` is raised in the generator. Any other
        one, Ctrl-C above all, is raised here. Raises what the generator raises.
        """
        while (request := self.request) is not None:
            self.answer_by(partial(carry_out, request))
        return self.result

    async def run_async(self, carry_out: Callable[[_Request], Awaitable[object]]) -> _Result:
        """See `run`; a cancellation is raised here, too."""
        while (request := self.request) is not None:
            await self.answer_when_done(carry_out(request))
        return self.result

    # Not in a handler: what the generator raises later has nothing to do with the answer.
    def _answer_or_fail(self, reply: object, failure: Exception | None) -> None:
        if failure is None:
            self.answer(reply)
        else:
            self.fail(failure)

    def _go_on(self, step: Callable[[], _Request]) -> None:
        try:
            self.request = step()
        except StopIteration as end:
            self.request = None
            self._result = end.value
        except BaseException:
            self.request = None
            raise

    @property
    def result(self) -> _Result:
        """What the generator returned, once `request` is None."""
        return cast(_Result, self._result)


@final
class Exchange(Steps[Request, _Result]):
    """A conversation under way.

    It keeps its place, so a driver that ran out of time can go on with it later.
    """

    __slots__ = ()
