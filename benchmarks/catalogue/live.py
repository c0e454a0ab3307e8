"""Who runs live: who drains a slot, who reads the replayed stream, and who waits for commits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from . import OnTwin

Race: TypeAlias = Literal["drain", "replay", "latency", "rate"]
Transport: TypeAlias = Literal["tcp", "unix"]

# The floor runs twice: how far the two are apart in a round says how much a ratio is worth.
FLOOR: Final = "bare"
FLOOR_AGAIN: Final = "bare-again"

TRANSPORTS: Final[tuple[Transport, ...]] = ("tcp", "unix")

_GROUPS: Final = {
    "bare": "a socket and nothing else",
    "c": "pgrepl, blocking",
    "asyncio": "pgrepl, asyncio",
    "uvloop": "pgrepl, asyncio on uvloop",
    "python": "pgrepl, pure twin, blocking",
    "psycopg2": "psycopg2, consume_stream",
    "pg_recvlogical": "PostgreSQL's own client",
}


@dataclass(frozen=True, slots=True)
class Contender(OnTwin):
    """One row of a table.

    `course` is what it runs on: a shape of drains, the replay server, a transport, a rate. `work`
    is its program's name in `drains`, `async_drains`, `readers` or `keepers`. `blocking` says who
    does the same work without an event loop, `implementation` the twin of pgrepl: c or python.
    `share` is the part of --messages that it is given on the replay server, `max_delay` pgrepl's
    option; None: as it is by itself.
    """

    race: Race
    course: str
    who: str
    group: str
    label: str
    work: str
    blocking: str | None = None
    implementation: str | None = None
    share: float = 0
    max_delay: float | None = None

    @property
    def name(self) -> str:
        return self.name_of(self.who)

    def name_of(self, who: str) -> str:
        """Return the name of somebody on the same course."""
        return f"live-{self.course}-{who}"

    def command(self, task: object) -> list[str]:
        """Return the command of a process that does a task, which is written as JSON."""
        if self.race == "latency":
            module = "readers"
        elif self.race == "rate":
            module = "keepers"
        else:
            has_loop = self.work.startswith(("asyncio-", "uvloop-"))
            module = "async_drains" if has_loop else "drains"
        return [sys.executable, "-m", f"benchmarks.live.{module}", self.work, str(task)]


_UNREAD: Final = "transactions(), nothing read"
_TYPED: Final = "transactions(), astuple()"
_BATCHES: Final = "batches(), astuple()"
_HEADERS: Final = "receive_wal_messages(), headers"
_PAYLOADS: Final = "receive_wal_messages(), msg.data"


def _pgrepl(
    race: Race, course: str, works: dict[str, str], shares: dict[str, float], blocking_alone: str
) -> Iterator[Contender]:
    for loop in ("", "asyncio-", "uvloop-"):
        for work, label in works.items():
            if (work == "bare" and not loop) or (work == blocking_alone and loop):
                continue
            who = work if work == "bare" else f"pgrepl-{work}"
            yield Contender(
                *(race, course, f"{loop}{work}" if work == "bare" else f"pgrepl-{loop}{work}"),
                group=_GROUPS[loop.rstrip("-") or "c"],
                label=label,
                work=f"{loop}{work}",
                blocking=who if loop else None,
                implementation=None if work == "bare" else "c",
                share=shares.get(work, 0),
            )


def _drain(shape: str) -> Iterator[Contender]:
    yield Contender("drain", shape, FLOOR, _GROUPS["bare"], "bare recv_into, 64 KiB", "bare")
    again = "bare recv_into, once more"
    yield Contender("drain", shape, FLOOR_AGAIN, _GROUPS["bare"], again, "bare")
    works = {
        "bare": "bare protocol, no pgrepl",
        "payloads": _PAYLOADS,
        "unread": _UNREAD,
        "typed": _TYPED,
        "batches": _BATCHES,
    }
    yield from _pgrepl("drain", shape, works, {}, "payloads")
    psycopg2 = _GROUPS["psycopg2"]
    yield Contender("drain", shape, "psycopg2", psycopg2, "payload read", "psycopg2")
    yield Contender(
        *("drain", shape, "psycopg2-acks", psycopg2, "payload read, each commit acknowledged"),
        "psycopg2-acks",
    )
    yield Contender(
        *("drain", shape, "pg_recvlogical", _GROUPS["pg_recvlogical"], "into /dev/null"),
        "pg_recvlogical",
    )
    yield Contender(
        *("drain", shape, "pgrepl-python-typed", _GROUPS["python"], _TYPED, "typed"),
        implementation="python",
    )


def _replay() -> Iterator[Contender]:
    works = {"headers": _HEADERS, "typed": _TYPED, "batches": _BATCHES}
    shares = {"headers": 1 / 2, "typed": 1 / 16, "batches": 1 / 16}
    yield from _pgrepl("replay", "replay", works, shares, "")


def _latency(transport: Transport) -> Iterator[Contender]:
    course = f"latency-{transport}"
    yield Contender("latency", course, "bare", _GROUPS["bare"], "bare recv, one value", "bare")
    label = "transactions(), the row's value"
    for loop in ("", "asyncio", "uvloop"):
        for max_delay in (None, 0.0):
            yield Contender(
                *("latency", course),
                who=f"pgrepl{loop and '-'}{loop}{'' if max_delay is None else '-at-once'}",
                group=_GROUPS[loop or "c"],
                label=label if max_delay is None else "the same, max_delay=0",
                work=loop or "pgrepl",
                implementation="c",
                max_delay=max_delay,
            )
    yield Contender("latency", course, "psycopg2", _GROUPS["psycopg2"], "one value", "psycopg2")
    yield Contender(
        *("latency", course, "pg_recvlogical", _GROUPS["pg_recvlogical"], "a pipe, one value"),
        "pg_recvlogical",
    )


def _rate() -> Iterator[Contender]:
    for work, label in (("typed", _TYPED), ("batches", _BATCHES)):
        yield Contender(
            *("rate", "rate", f"pgrepl-{work}", _GROUPS["c"], label, work), implementation="c"
        )
    yield Contender(
        *("rate", "rate", "psycopg2", _GROUPS["psycopg2"], "payload read", "psycopg2"),
    )


LINE_UP: Final = (
    *(each for shape in ("large", "ten", "single") for each in _drain(shape)),
    *_replay(),
    *(each for transport in TRANSPORTS for each in _latency(transport)),
    *_rate(),
)
