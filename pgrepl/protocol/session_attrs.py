"""Whether a session is one that target_session_attrs asks for.

Law: an answer is short. A server that has been let in is still not trusted with memory, or with
time beyond the connection's limit.

Source: PostgreSQL documentation, "target_session_attrs" (libpq).
"""

from __future__ import annotations

from typing import Final

from ..conninfo.parameters import TargetSessionAttrs
from ..errors import ProtocolError, ServerError, UsageError
from . import frontend
from .answers import only_row, text
from .backend import ServerState
from .conversation import RECEIVE, Conversation, Frame, Send
from .query import Answer

__all__ = ["why_not"]

# RowDescription, DataRow, CommandComplete, ReadyForQuery; and what may come at any time.
_MAX_MESSAGES: Final = 100

_IN_RECOVERY: Final = "SELECT pg_catalog.pg_is_in_recovery()"
_READ_ONLY: Final = "SHOW transaction_read_only"


def why_not(
    state: ServerState, wanted: TargetSessionAttrs, *, is_physical: bool
) -> Conversation[str | None]:
    """Return what is wrong with the session, None where it is one that is wanted.

    From 14 on servers tell it unasked; older ones, and poolers that keep it back, are asked. Raises
    `UsageError` where such a one cannot be asked on a physical connection, which has no SQL.
    """
    try:
        return (yield from _why_not(state, wanted, is_physical))
    except ServerError as error:
        return f"the server does not tell: {error}"


def _why_not(
    state: ServerState, wanted: TargetSessionAttrs, is_physical: bool
) -> Conversation[str | None]:
    if wanted == "any":
        return None
    in_recovery = state.parameters.get("in_hot_standby")
    read_only = state.parameters.get("default_transaction_read_only")
    if wanted in ("read-write", "read-only"):
        if in_recovery is None or read_only is None:
            answer = yield from _ask(state, _READ_ONLY, f"its session is {wanted}")
            is_read_only = answer == "on"
        else:
            is_read_only = "on" in (in_recovery, read_only)
        if is_read_only == (wanted == "read-only"):
            return None
        return "the session is read-only" if is_read_only else "the session is not read-only"
    if in_recovery is None:
        if is_physical:
            raise UsageError(
                f"expected a server that tells whether it is a {wanted}, as PostgreSQL 14 and "
                "newer do; an older one can only be asked by SQL, which a physical connection does "
                "not have: use target_session_attrs=read-write or read-only, or any"
            )
        answer = yield from _ask(state, _IN_RECOVERY, f"it is a {wanted}")
        in_recovery = "on" if answer == "t" else "off"
    if (in_recovery == "on") == (wanted != "primary"):
        return None
    return "the server is a standby" if in_recovery == "on" else "the server is not a standby"


def _ask(state: ServerState, sql: str, what: str) -> Conversation[str]:
    """Return the one value that a query gives. Raises `ServerError` or `ProtocolError`."""
    yield Send(frontend.query(sql))
    answer = Answer(state)
    for _ in range(_MAX_MESSAGES):
        frame: Frame = yield RECEIVE
        if not state.absorb(frame) and answer.take(frame):
            break
    else:
        raise ProtocolError(
            f"expected at most {_MAX_MESSAGES} messages in answer to the question whether {what}, "
            "got more"
        )
    if answer.error is not None:
        raise answer.error
    return text(only_row(answer.results, 1, sql.split()[0])[0])
