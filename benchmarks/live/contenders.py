"""Who runs live: who drains a slot, who reads the replayed stream, and who waits for commits."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Race: TypeAlias = Literal["drain", "replay", "latency"]

FLOOR: Final = "live-drain-bare"
# The same once more: how far the two are apart in a round says how much a ratio is worth.
FLOOR_AGAIN: Final = "live-drain-bare-again"

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
class Contender:
    """One row of a table.

    `work` is its program's name in `drains`, `async_drains` or `readers`. `blocking` names the
    contender that does the same work without an event loop, `implementation` the twin of pgrepl: c
    or python. `share` is the part of --messages that it is given on the replay server.
    """

    race: Race
    who: str
    group: str
    label: str
    work: str
    blocking: str | None = None
    implementation: str | None = None
    share: float = 0

    @property
    def name(self) -> str:
        return f"live-{self.race}-{self.who}"

    @property
    def environment(self) -> dict[str, str]:
        """What to set in the process's environment."""
        return {"PGREPL_IMPL": self.implementation} if self.implementation else {}

    def command(self, task: object) -> list[str]:
        """Return the command of a process that does a task, which is written as JSON."""
        if self.race == "latency":
            module = "readers"
        else:
            has_loop = self.work.startswith(("asyncio-", "uvloop-"))
            module = "async_drains" if has_loop else "drains"
        return [sys.executable, "-m", f"benchmarks.live.{module}", self.work, str(task)]


_UNREAD: Final = "transactions(), nothing read"
_TYPED: Final = "transactions(), astuple()"
_BATCHES: Final = "batches(), astuple()"
_HEADERS: Final = "receive_wal_messages(), headers"


def _pgrepl(race: Race, works: dict[str, str], shares: dict[str, float]) -> Iterator[Contender]:
    for loop in ("", "asyncio-", "uvloop-"):
        for work, label in works.items():
            if work == "bare" and not loop:
                continue
            yield Contender(
                race=race,
                who=f"{loop}bare" if work == "bare" else f"pgrepl-{loop}{work}",
                group=_GROUPS[loop.rstrip("-") or "c"],
                label=label,
                work=f"{loop}{work}",
                blocking=(f"live-{race}-pgrepl-{work}" if work != "bare" else FLOOR)
                if loop
                else None,
                implementation=None if work == "bare" else "c",
                share=shares.get(work, 0),
            )


def _drain() -> Iterator[Contender]:
    yield Contender("drain", "bare", _GROUPS["bare"], "bare recv_into, 64 KiB", "bare")
    works = {
        "bare": "bare protocol, no pgrepl",
        "unread": _UNREAD,
        "typed": _TYPED,
        "batches": _BATCHES,
    }
    yield from _pgrepl("drain", works, {})
    again = "bare recv_into, once more"
    yield Contender("drain", "bare-again", _GROUPS["bare"], again, "bare")
    yield Contender("drain", "psycopg2", _GROUPS["psycopg2"], "payload read", "psycopg2")
    yield Contender(
        *("drain", "pgrepl-python-typed", _GROUPS["python"], _TYPED, "typed"),
        implementation="python",
    )


def _replay() -> Iterator[Contender]:
    works = {"headers": _HEADERS, "typed": _TYPED, "batches": _BATCHES}
    yield from _pgrepl("replay", works, {"headers": 1 / 2, "typed": 1 / 16, "batches": 1 / 16})


def _latency() -> Iterator[Contender]:
    yield Contender("latency", "bare", _GROUPS["bare"], "bare recv, one value", "bare")
    label = "transactions(), the row's value"
    for loop in ("", "asyncio", "uvloop"):
        yield Contender(
            race="latency",
            who=f"pgrepl-{loop}" if loop else "pgrepl",
            group=_GROUPS[loop or "c"],
            label=label,
            work=loop or "pgrepl",
            implementation="c",
        )
    yield Contender("latency", "psycopg2", _GROUPS["psycopg2"], "one value", "psycopg2")
    yield Contender(
        *("latency", "pg_recvlogical", _GROUPS["pg_recvlogical"], "a pipe, one value"),
        "pg_recvlogical",
    )


LINE_UP: Final = (*_drain(), *_replay(), *_latency())
