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

from ..conninfo.encodings import SQL_ASCII, UTF8
from ..errors import ProtocolError, ServerError, server_error
from . import frontend
from .backend import ServerState, error_fields, unexpected
from .conversation import RECEIVE, Conversation, Frame, Send
from .quoting import literal

__all__ = ["command", "settings_due"]

# A CommandComplete and a ParameterStatus for each setting; and what may come at any time.
_MAX_MESSAGES: Final = 100


def settings_due(
    wanted: Mapping[str, str], reported: Mapping[str, str], client_encoding: str | None
) -> Mapping[str, str]:
    """Return the settings for `ServerState.settings_due`.

    `wanted`, but for a database that does not say what its bytes mean: those come as they are,
    since the server would refuse those that are no UTF-8, and end a stream there every time. UTF8
    as the `client_encoding` that was asked for has just that. `reported`: what the server told.
    """
    is_unknown = reported.get("server_encoding") == SQL_ASCII and client_encoding != UTF8
    return {**wanted, "client_encoding": SQL_ASCII} if wanted and is_unknown else wanted


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
