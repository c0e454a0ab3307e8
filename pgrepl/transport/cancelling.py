"""What a request to cancel is made of, in both flavours: see `cancelling` of each.

Law: it goes to the address that the session was connected to, which a name may have many of, and
with TLS exactly where the session has it: who can read the key can cancel as well.

Source: PostgreSQL documentation, "Canceling Requests in Progress".
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from ..errors import UsageError, server_error
from ..protocol.backend import ServerState, error_fields, unexpected
from ..protocol.conversation import RECEIVE, Conversation, Frame
from ..protocol.frontend import cancel_request
from .attempts import Attempt
from .clock import Deadline

__all__ = ["cancelling_within", "expect_nothing", "request_to_cancel", "same_way"]


def request_to_cancel(state: ServerState) -> bytes:
    """Return the message. Raises `UsageError` where the server told no key."""
    if not state.cancel_key:
        raise UsageError(
            "expected a server that has told how to cancel what it does, this one sent no key; use "
            f"pg_cancel_backend({state.pid or 'pid'}) in another session"
        )
    return cancel_request(state.pid, state.cancel_key)


def same_way(way: Attempt, timeout: float | None) -> Attempt:
    """Return the way that the session was `Opened` by, within a time of its own."""
    limit = way.parameters.connect_timeout if timeout is None else timeout
    return replace(way, deadline=Deadline.after(limit))


def expect_nothing() -> Conversation[None]:
    """Wait until the server has taken note: it closes the connection."""
    frame: Frame = yield RECEIVE
    if frame[0] == b"E":
        raise server_error(error_fields(frame))
    raise unexpected(frame, "the end of the connection in answer to the request to cancel")


@contextlib.contextmanager
def cancelling_within(way: Attempt) -> Iterator[None]:
    """Say of a time limit that ran out what it was for."""
    try:
        yield
        return
    except TimeoutError:
        error = TimeoutError(
            f"{way.where} has not taken note of the request to cancel within "
            f"{way.deadline.timeout} s; it may still do so, and can be asked again"
        )
    raise error from None
