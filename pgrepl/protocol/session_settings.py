"""The settings that values are read by: set by SQL, ahead of the session's first command.

Poolers let a handful of startup parameters through, and refuse the others or drop them without a
word; SQL they pass on. So what gives values their form is a query of its own, sent in one piece
with the first command, which costs no round trip. A connection for physical replication has no SQL,
and no values.

Source: PostgreSQL documentation, "Simple Query", "Client Connection Defaults".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import ProtocolError, ServerError, server_error
from . import frontend
from .backend import ServerState, error_fields, unexpected
from .conversation import RECEIVE, Conversation, Frame, Send
from .grammar import literal

__all__ = ["command", "settings_due"]

# A CommandComplete and a ParameterStatus for each setting; and what may come at any time.
_MAX_MESSAGES: Final = 100

_ENCODING: Final = "client_encoding"
# Of a database that does not say what its bytes mean: they come as they are, since the server
# would refuse those that are none in the client's encoding, and end the stream there every time.
_AS_STORED: Final = "SQL_ASCII"


def settings_due(
    wanted: Mapping[str, str], parameters: Mapping[str, str], reported: Mapping[str, str]
) -> dict[str, str]:
    """Return the settings for `ServerState.settings_due`: `wanted`, and client_encoding.

    Where that is not `wanted`, it is the one of the StartupMessage's `parameters`, or SQL_ASCII
    where that is the database's. `reported` is what the server told.
    """
    if not wanted:
        return {}
    asked = parameters.get(_ENCODING, "")
    if _ENCODING not in wanted and reported.get("server_encoding") == _AS_STORED:
        asked = _AS_STORED
    return {**wanted, _ENCODING: wanted.get(_ENCODING, asked)}


def command(state: ServerState, sql: str) -> Conversation[None]:
    """Send a command, and ahead of the session's first one the settings.

    Raises `ProtocolError` where they are not taken, and `ServerError` where the server ends the
    session.
    """
    due, state.settings_due = state.settings_due, {}
    if not due:
        yield Send(frontend.query(sql))
        return
    assignments = (f"SET {name} = {literal(value)}" for name, value in due.items())
    yield Send(frontend.query("; ".join(assignments)) + frontend.query(sql))
    error: ServerError | None = None
    for _ in range(_MAX_MESSAGES):
        frame: Frame = yield RECEIVE
        tag = frame[0]
        if state.absorb(frame) or tag == b"C":
            continue
        if tag == b"Z":
            break
        if tag != b"E":
            raise unexpected(frame, "the answer to SET")
        error = error or server_error(error_fields(frame))
        if error.severity != "ERROR":
            raise error  # the server ends the session with it
    else:
        raise ProtocolError(f"expected at most {_MAX_MESSAGES} messages in answer to SET, got more")
    state.ready(frame)
    _check(due, state, error)


def _check(due: Mapping[str, str], state: ServerState, error: ServerError | None) -> None:
    """Check that settings have been taken; of some the server tells."""
    if error is not None:
        raise ProtocolError(
            f"expected the settings {', '.join(due)} to be taken, which values are read by, got "
            f"{error}"
        ) from error
    for name, value in due.items():
        # Of DateStyle the order of the fields may follow.
        got = state.parameters.get(name, value)
        if got.split(",")[0].upper() != value.split(",")[0].upper():
            raise ProtocolError(f"expected {name} {value} as was set, got {got[:40]!r}")
