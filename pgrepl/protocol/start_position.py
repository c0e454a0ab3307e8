"""Where a stream begins, held against what the slot and the server's history still have.

What is checked depends on how the position is given:

    nothing        the slot's confirmed position
    an Lsn         that it is not beyond the server's WAL; the stream begins there, or at the slot's
                   confirmed position where that is later
    a ResumeToken  the same, and that it is of this system and of a timeline that led here by way of
                   the position, and not before the slot's confirmed position

An Lsn that lies before the confirmed position is no error, since a slot follows the server while
its stream has nothing to deliver: who keeps the end of the last transaction, as PostgreSQL's own
apply workers do, comes back with less than was confirmed. Nothing that the server shows tells that
apart from a slot that was advanced, or dropped and created again: its restart_lsn, too, passes such
a position while the stream is idle. Streams with tokens confirm nothing by themselves.

Source: PostgreSQL documentation, "Streaming Replication Protocol".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from ..errors import ProtocolError, ServerError, SlotGap, SystemMismatch, server_error
from ..lsn import Lsn
from ..resume import ResumeToken
from .backend import ServerState
from .conversation import Conversation
from .query import Result, simple_query
from .replication import SystemIdentity
from .slot_state import SlotState, lsn, misread, number, present, report

__all__ = ["check_history", "start_position"]


def start_position(slot: SlotState, system: SystemIdentity, start: Lsn | ResumeToken | None) -> Lsn:
    """Return where to start; what is wanted must be neither lost nor yet to come.

    Raises `SlotGap`, or `SystemMismatch`.
    """
    confirmed = present("confirmed_flush_lsn", slot.confirmed_flush_lsn)
    if isinstance(start, ResumeToken):
        if start.systemid != system.systemid:
            _raise_mismatch(system, start, "another system")
        if start.timeline > system.timeline:
            _raise_mismatch(system, start, "an earlier timeline of the same system")
        wanted = start.end_lsn
    elif not start:
        return confirmed
    else:
        wanted = Lsn(start)
    if confirmed > wanted:
        if not isinstance(start, ResumeToken):
            return confirmed
        raise _gap(
            wanted,
            confirmed,
            f'expected replication slot "{slot.name}" to have the changes from {wanted} on, it has '
            f"those from {confirmed} on",
            detail=f"The server would begin at {confirmed} and tell nobody. The slot was advanced, "
            "acknowledged further (an idle stream does so too), or dropped and created again.",
            hint="copy the tables again and go on from the slot's position; if you know that "
            f"nothing was published in between, begin at {confirmed}",
        )
    if wanted > system.xlogpos:
        raise _gap(
            wanted,
            system.xlogpos,
            f"expected a server whose WAL reaches to {wanted}, this one's ends at {system.xlogpos}",
            detail="It is older than the position: restored from a backup, or a standby that lags "
            "behind. What it commits up to there would be left out.",
            hint="wait for the standby to catch up, or connect to the server that the position is "
            "from; if that one is gone, copy the tables again",
        )
    return wanted


def _gap(wanted: Lsn, available: Lsn, message: str, *, detail: str, hint: str) -> SlotGap:
    fields = report("55000", message, detail=detail, hint=hint)
    return SlotGap(fields, wanted=wanted, available=available)


def _raise_mismatch(system: SystemIdentity, token: ResumeToken, what: str) -> NoReturn:
    raise SystemMismatch(
        report(
            "55000",
            f"expected system {token.systemid} with timeline {token.timeline}, got system "
            f"{system.systemid} with timeline {system.timeline}",
            detail=f"The resume token {token} is not of this server's history: this is {what}.",
            hint="connect to the server that the token is from, or to one promoted from it; if "
            "there is none, copy the tables again and go on without the token",
        ),
        expected=(token.systemid, token.timeline),
        got=(system.systemid, system.timeline),
    )


def check_history(
    state: ServerState, system: SystemIdentity, token: ResumeToken
) -> Conversation[None]:
    """Check that the server left the token's timeline not before the token's position.

    What a promoted standby had not received is missing there, and the same positions hold other
    transactions now.
    """
    try:
        results = yield from simple_query(state, f"TIMELINE_HISTORY {system.timeline}")
    except ServerError as error:
        if error.severity != "ERROR":
            raise
        hint = (
            f"without the history of timeline {system.timeline} nobody can tell whether timeline "
            f"{token.timeline} led here by way of {token.end_lsn}: put the file into pg_wal, or "
            "begin at that position without a token if you know that it did"
        )
        raise server_error({**error.fields, "hint": hint}) from error
    switch = _switch_point(results, token.timeline)
    if switch is None:
        _raise_mismatch(system, token, "another branch, without that timeline")
    if token.end_lsn > switch:
        raise _gap(
            token.end_lsn,
            switch,
            f"expected {token.end_lsn} of timeline {token.timeline} in this server's history, it "
            f"left that timeline at {switch}",
            detail="It was promoted, or restored, before it had all that was consumed, so that "
            f"timeline {system.timeline} has other transactions at that position.",
            hint="what was consumed beyond that point is not on this server: copy the tables again",
        )


def _switch_point(results: Sequence[Result], timeline: int) -> Lsn | None:
    """Where a history leaves a timeline; None: it never was on it."""
    rows = [row for result in results for row in result.rows]
    if len(rows) != 1 or len(rows[0]) != 2:
        raise ProtocolError(
            "expected one row of 2 columns in answer to TIMELINE_HISTORY, got "
            f"{len(rows)} rows of {[len(row) for row in rows][:3]} columns"
        )
    for line in present("a timeline's history", rows[0][1]).splitlines():
        words = line.split(None, 2)
        if not words or words[0].startswith("#"):
            continue
        if len(words) < 2:
            raise misread("a timeline's history", "lines of timeline and LSN", line)
        position = lsn("a timeline's end", words[1])
        if number("a timeline", words[0]) == timeline:
            return position
    return None
