"""Who reads the stream: the line-up, what each does with a message, whom it is compared with.

A contender of pgrepl is compared with the psycopg2 callback that does the same work with each
message.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..replay import END_OF_STREAM, SLOT_PREFIX
from . import OnTwin

FLOOR: Final = "bare-recv"

_GROUPS: Final = {"c": "pgrepl, native twin", "python": "pgrepl, pure twin"}


@dataclass(frozen=True, slots=True)
class Course:
    """Where the stream is: the replay server, the capture's file, the real server's programs.

    `host` is an address, or the folder of a Unix socket.
    """

    host: str
    port: int
    capture: Path
    bin_directory: Path


@dataclass(frozen=True, slots=True)
class Contender(OnTwin):
    """One row of the table.

    `share` is the part of --messages that it is given: as many as it takes for start-up to be small
    beside the work, and not more. `peer` names the psycopg2 contender with the same work,
    `implementation` the twin of pgrepl: c or python.
    """

    name: str
    group: str
    label: str
    program: tuple[str, ...]
    share: float
    peer: str | None = None
    implementation: str | None = None

    def count(self, messages: int) -> int:
        """Return how many messages it takes where --messages is that."""
        return max(1, round(messages * self.share))

    @property
    def is_on_the_wire(self) -> bool:
        """Whether it reads the replayed stream, so that bytes can be counted."""
        return self.program[0] != "benchmarks.fed"

    def command(self, messages: int, size: int, course: Course) -> list[str]:
        """Return the command of a process that takes so many messages of that size in all."""
        module, *arguments = self.program
        if module == "pg_recvlogical":
            return _pg_recvlogical(messages, course)
        if module == "pgrepl":
            return _pgrepl_stream(messages, course)
        python = [sys.executable, "-m", module, *arguments, str(messages)]
        if self.is_on_the_wire:
            return [*python, course.host, str(course.port), str(size)]
        return [*python, str(size), str(course.capture)]


def _pg_recvlogical(messages: int, course: Course) -> list[str]:
    return [
        str(course.bin_directory / "pg_recvlogical"),
        *(f"--host={course.host}", f"--port={course.port}"),
        *("--username=postgres", "--dbname=postgres", "--start"),
        *_recvlogical_options(messages),
    ]


def _pgrepl_stream(messages: int, course: Course) -> list[str]:
    conninfo = f"host={course.host} port={course.port} user=postgres dbname=postgres"
    program = [sys.executable, "-m", "pgrepl", "stream", f"{conninfo} sslmode=disable"]
    return [*program, "--format=raw", *_recvlogical_options(messages)]


def _recvlogical_options(messages: int) -> list[str]:
    """What both programs call by the same names."""
    return [
        *(f"--slot={SLOT_PREFIX}{messages}", "--no-loop", "--file=/dev/null"),
        f"--endpos={END_OF_STREAM >> 32:X}/{END_OF_STREAM & 0xFFFFFFFF:X}",
        *("--option=proto_version=1", "--option=publication_names=reference"),
    ]


def _pgrepl(implementation: str, work: str, label: str, peer: str, share: float) -> Contender:
    return Contender(
        name=f"pgrepl-{implementation}-{work}",
        group=_GROUPS[implementation],
        label=label,
        program=("benchmarks.clients", f"pgrepl-{work}"),
        share=share if implementation == "c" else 1 / 32,
        peer=f"psycopg2-{peer}",
        implementation=implementation,
    )


def _pgrepl_all(implementation: str) -> list[Contender]:
    decode = Contender(
        name=f"pgrepl-{implementation}-decode",
        group=_GROUPS[implementation],
        label="Decoder.feed, no stream",
        program=("benchmarks.fed", "decode"),
        share=1 / 4 if implementation == "c" else 1 / 64,
        implementation=implementation,
    )
    return [
        _pgrepl(implementation, "columns", "batches, columns read", "iterate", 2),
        _pgrepl(implementation, "iterate", "iterate", "iterate", 1),
        _pgrepl(implementation, "positions", "iterate, positions read", "positions", 1),
        _pgrepl(implementation, "headers", "iterate, headers read", "headers", 1),
        _pgrepl(implementation, "headers-checked", "same, isinstance() each", "headers", 1),
        _pgrepl(implementation, "everything", "headers and msg.data", "everything", 1 / 2),
        _pgrepl(implementation, "payload", "iterate, msg.data", "payload", 1 / 2),
        _pgrepl(implementation, "payload-bytes", "iterate, bytes(msg)", "payload", 1 / 2),
        _pgrepl(implementation, "one", "receive_wal_message()", "iterate", 1 / 4),
        decode,
    ]


def _psycopg2(work: str, label: str) -> Contender:
    return Contender(
        name=f"psycopg2-{work}",
        group="psycopg2, consume_stream",
        label=label,
        program=("benchmarks.clients", f"psycopg2-{work}"),
        share=1 / 8,
    )


LINE_UP: Final[tuple[Contender, ...]] = (
    Contender(
        name=FLOOR,
        group="a socket and nothing else",
        label="bare recv_into, 64 KiB",
        program=("benchmarks.clients", FLOOR),
        share=2,
    ),
    *_pgrepl_all("c"),
    _psycopg2("iterate", "nothing read"),
    _psycopg2("positions", "positions read"),
    _psycopg2("headers", "headers read"),
    _psycopg2("everything", "headers and payload read"),
    _psycopg2("payload", "payload read"),
    Contender(
        name="pg_recvlogical",
        group="programs, into /dev/null",
        label="pg_recvlogical",
        program=("pg_recvlogical",),
        share=1 / 8,
        peer="psycopg2-payload",
    ),
    Contender(
        name="pgrepl-stream-raw",
        group="programs, into /dev/null",
        label="pgrepl stream --format raw",
        program=("pgrepl",),
        share=1 / 2,
        peer="psycopg2-payload",
        implementation="c",
    ),
    *_pgrepl_all("python"),
)
