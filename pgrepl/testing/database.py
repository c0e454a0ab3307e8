"""A database for one test, and SQL on a temporary server, which runs over pgrepl itself.

Dropping one is a conversation, a generator that asks for SQL, so that both flavours have the same.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ..blocking.connection import connect
from ..protocol.query import Result
from ..public import imported_from

if TYPE_CHECKING:
    from .server import TemporaryServer

__all__ = ["Rows", "TemporaryDatabase", "execute", "last_rows"]

Rows: TypeAlias = list[tuple[str | None, ...]]
"""Rows of text as the server has it, None for null."""

APPLICATION: Final = "pgrepl.testing"

# Slots of the database, and those of the whole server that bear its name. Who holds one is ended; a
# sender on its way out may hold it a moment longer.
_DROP_SLOTS: Final = """
DO $do$
DECLARE
    slot record;
    deadline timestamptz := clock_timestamp() + interval '10 seconds';
BEGIN
    LOOP
        FOR slot IN
            SELECT slot_name, active_pid FROM pg_catalog.pg_replication_slots
            WHERE database = '{name}' OR starts_with(slot_name, '{name}_')
        LOOP
            PERFORM pg_catalog.pg_terminate_backend(slot.active_pid);
            BEGIN
                PERFORM pg_catalog.pg_drop_replication_slot(slot.slot_name);
            EXCEPTION
                WHEN object_in_use THEN
                    IF clock_timestamp() > deadline THEN
                        RAISE;
                    END IF;
                WHEN undefined_object THEN -- a temporary one, now gone
            END;
        END LOOP;
        EXIT WHEN NOT FOUND;
        PERFORM pg_catalog.pg_sleep(0.01);
    END LOOP;
END
$do$
"""

_PREPARED: Final = """
SELECT pg_catalog.format('ROLLBACK PREPARED %L', gid)
FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()
"""


class Ask(NamedTuple):
    """SQL to be run in a database; the answer is its rows."""

    dbname: str
    sql: str


def dropping(name: str) -> Generator[Ask, Rows, None]:
    """End all that holds the database `name`, and drop it."""
    yield Ask("postgres", _DROP_SLOTS.format(name=name))
    for (statement,) in (yield Ask(name, _PREPARED)):
        yield Ask(name, str(statement))
    yield Ask("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@imported_from("pgrepl.testing")
class TemporaryDatabase:
    """An empty database, made by `TemporaryServer.new_database`, which drops it in the end.

    Logical slots in it are dropped with it, and so is every slot whose name begins with its own.
    """

    def __init__(self, server: TemporaryServer, name: str) -> None:
        self.server = server
        self.name = name

    def __repr__(self) -> str:
        return f"<TemporaryDatabase {self.name} of {self.server!r}>"

    def slot(self, stem: str = "slot") -> str:
        """A slot's name that no other database's test uses: slots belong to the whole server.

        Each `stem` has a name of its own, and the same one whenever it is asked for.
        """
        return f"{self.name}_{stem}"

    def dsn(self, **parameters: str | int) -> str:
        """A libpq keyword/value string for this database; see `TemporaryServer.dsn`."""
        return self.server.dsn(**{"dbname": self.name, **parameters})

    def url(self, **parameters: str | int) -> str:
        """The same in the form ``postgresql://postgres@127.0.0.1:23456/test_1``."""
        return self.server.url(**{"dbname": self.name, **parameters})

    def execute(self, sql: str) -> Rows:
        """Run SQL in this database; see `TemporaryServer.execute`."""
        return self.server.execute(sql, dbname=self.name)

    def drop(self) -> None:
        """End its sessions, roll back what is prepared, drop its slots and then itself."""
        conversation = dropping(self.name)
        ask = next(conversation, None)
        while ask is not None:
            rows = self.server.execute(ask.sql, dbname=ask.dbname)
            ask = _next(conversation, rows)


def _next(conversation: Generator[Ask, Rows, None], rows: Rows) -> Ask | None:
    try:
        return conversation.send(rows)
    except StopIteration:
        return None


def execute(conninfo: str, sql: str) -> Rows:
    """Run SQL in a session of its own; return the last statement's rows."""
    with connect(conninfo, application_name=APPLICATION) as connection:
        return last_rows(connection.query(sql))


def last_rows(results: list[Result]) -> Rows:
    """The rows of the last statement; none where it returns none."""
    return results[-1].rows if results else []
