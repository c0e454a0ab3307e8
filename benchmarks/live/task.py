"""What a client is told: which slot to stream, what to see in it, and by what the end is known."""

from __future__ import annotations

import json
from dataclasses import astuple, dataclass
from typing import Any, ClassVar, Self

from ..wire import Frontend


class ClientFailed(Exception):
    """A client has not seen what the slot has, so that what was measured means nothing."""


def open_session(host: str, port: int) -> Frontend:
    """Connect without any library, for SQL and for replication."""
    return Frontend(host, port, user="postgres", database="postgres", replication="database")


@dataclass(frozen=True, slots=True)
class Task:
    """A slot to stream; as text it is JSON.

    Without a name of a slot the task is to connect and nothing more, to see whether that works.
    """

    host: str
    port: int
    slot: str

    publication: ClassVar[str]

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(*json.loads(text))

    def __str__(self) -> str:
        return json.dumps(astuple(self))

    @property
    def command(self) -> str:
        """The START_REPLICATION of those who write it themselves."""
        options = f"proto_version '1', publication_names '{self.publication}'"
        return f'START_REPLICATION SLOT "{self.slot}" LOGICAL 0/0 ({options})'

    @property
    def keywords(self) -> dict[str, Any]:
        """How pgrepl and psycopg2 connect."""
        return {
            "host": self.host,
            "port": self.port,
            "user": "postgres",
            "dbname": "postgres",
            "sslmode": "disable",
        }

    def session(self) -> Frontend:
        return open_session(self.host, self.port)


@dataclass(frozen=True, slots=True)
class DrainTask(Task):
    """A slot to drain, `passes` times, on a real server or on the replay server.

    `rows` is the number of Inserts, `last_id` the last one's. The rest is known once the stream was
    counted: the bytes of all XLogData, their number and that of the Commits; the last of those, in
    hex, and the end that it tells. `pg_recvlogical` is the path of that program.
    """

    rows: int
    last_id: int
    size: int = 0
    messages: int = 0
    transactions: int = 0
    last_commit: str = ""
    end_lsn: int = 0
    passes: int = 1
    pg_recvlogical: str = ""

    publication: ClassVar[str] = "reference"


@dataclass(frozen=True, slots=True)
class WaitTask(Task):
    """A slot to wait at for so many rows, their ids from 1 on, written at so many a second.

    The first `warm_up` rows are not counted. `pg_recvlogical` is the path of that program,
    `max_delay` an option of pgrepl's; None: as it is by itself.
    """

    rows: int
    warm_up: int
    rate: int
    pg_recvlogical: str
    max_delay: float | None = None

    publication: ClassVar[str] = "moments"


@dataclass(frozen=True, slots=True)
class KeepTask(Task):
    """A slot to keep up with while so many single rows are committed, at so many a second by so
    many writers."""

    rows: int
    rate: int
    writers: int

    publication: ClassVar[str] = "reference"


def check(what: str, expected: object, got: object) -> None:
    """See that all has come. Raises `ClientFailed`."""
    if got != expected:
        raise ClientFailed(f"expected {expected} {what}, got {got}")
