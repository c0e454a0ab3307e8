"""Sessions that write what is hard to decode: big transactions side by side, with savepoints, DDL,
values out of line, and outcomes of every kind."""

from __future__ import annotations

import random
from typing import Any, TypeAlias

import psycopg

__all__ = ["Writer", "write_all_kinds"]

Session: TypeAlias = psycopg.Connection[tuple[Any, ...]]


class Writer:
    """A session with open transactions and savepoints, on rows and a table of its own.

    All writers take turns in one thread, so none of them may wait for another's lock.
    """

    def __init__(self, session: Session, number: int, draw: random.Random) -> None:
        self._session = session
        self._own = f"own{number}"
        self._draw = draw
        self._first = number * 1_000_000
        self._next = self._first
        self._depth = 0
        self._columns = 0
        self._rewrote = False
        self.open = False
        self.prepared: str | None = None

    def insert(self, count: int, length: int = 100) -> None:
        """New rows, by ids never used before: no prepared transaction has a lock on them."""
        self._run(
            "INSERT INTO item SELECT i, repeat(chr(65 + i %% 26), %s), 'ok'"
            " FROM generate_series(%s::int, %s) i",
            [length, self._next, self._next + count - 1],
        )
        self._next += count

    def touch(self) -> None:
        """Change every row, but not what it has out of line."""
        bounds: list[object] = [self._first, self._next]
        self._run("UPDATE item SET m = 'sad' WHERE id BETWEEN %s AND %s", bounds)

    def step(self) -> None:
        """Do anything once, the beginning or end of a transaction for instance."""
        if not self.open:
            if self.prepared is not None and self._draw.random() < 0.5:
                self.settle(commit=self._draw.random() < 0.5)
            else:
                self.begin()
            return
        actions = [self._insert_some, self._insert_some, self._message, self.savepoint, self._end]
        if self.prepared is None:
            actions += [self._update, self._delete, self._change_own, self._alter_own]
        if self._depth:
            actions += [self.rollback_to, self.rollback_to, self.release]
        self._draw.choice(actions)()

    def begin(self) -> None:
        self._run("BEGIN")
        self.open, self._depth, self._rewrote = True, 0, False

    def savepoint(self) -> None:
        self._depth += 1
        self._run(f"SAVEPOINT s{self._depth}")

    def rollback_to(self) -> None:
        self._run(f"ROLLBACK TO s{self._depth}; RELEASE s{self._depth}")
        self._depth -= 1

    def release(self) -> None:
        self._run(f"RELEASE s{self._depth}")
        self._depth -= 1

    def end(self, how: str) -> None:
        if how == "PREPARE":
            self.prepared = f"{self._own} {self._next}"
            how = f"PREPARE TRANSACTION '{self.prepared}'"
        self._run(how)
        self.open = False

    def settle(self, *, commit: bool) -> None:
        self._run(f"{'COMMIT' if commit else 'ROLLBACK'} PREPARED '{self.prepared}'")
        self.prepared = None

    def finish(self) -> None:
        if self.open:
            self.end("COMMIT")
        if self.prepared is not None:
            self.settle(commit=True)

    def _run(self, statement: str, parameters: list[object] | None = None) -> None:
        self._session.execute(statement.encode(), parameters)

    def _insert_some(self) -> None:
        # Streaming begins where 64 kB of changes are waiting; 9000 bytes are stored out of line.
        count, length = self._draw.choice(((1, 10), (3, 9000), (30, 100), (300, 100), (300, 100)))
        self.insert(count, length)

    def _range(self) -> list[object]:
        first = self._draw.randint(self._first, self._next)
        return [first, first + self._draw.choice((5, 100))]

    def _update(self) -> None:
        assignment = self._draw.choice(("m = 'sad'", "note = note || '!'", "id = -id, m = 'ok'"))
        self._run(f"UPDATE item SET {assignment} WHERE id BETWEEN %s AND %s", self._range())

    def _delete(self) -> None:
        self._run("DELETE FROM item WHERE id BETWEEN %s AND %s", self._range())

    def _message(self) -> None:
        # In a stream it has the xid of the whole transaction, so that an aborted subtransaction
        # could not take it along.
        if self._depth == 0:
            self._run("SELECT pg_logical_emit_message(true, 'all', 'together')")
        self._run("SELECT pg_logical_emit_message(false, 'at', 'once')")

    def _change_own(self) -> None:
        self._run(
            f"INSERT INTO {self._own} (id, note) SELECT i, 'own'"
            " FROM generate_series(%s::int, %s) i",
            [self._next, self._next + 9],
        )
        self._next += 10
        if self._draw.random() < 0.2:
            self._run(f"TRUNCATE {self._own}")
            self._rewrote = True

    def _alter_own(self) -> None:
        self._columns += 1
        name = f"c{self._columns}"
        self._run(f"ALTER TABLE {self._own} ADD {name} int")
        self._run(f"UPDATE {self._own} SET {name} = id WHERE id %% 3 = 0", [])
        self._change_own()

    def _end(self) -> None:
        # One that gave a table a new file, was prepared, and is rolled back before it is decoded,
        # is more than PostgreSQL can decode ("could not map filenumber").
        last = "COMMIT" if self.prepared or self._rewrote else "PREPARE"
        self.end(self._draw.choice(("COMMIT", "COMMIT", "ROLLBACK", last)))


def write_all_kinds(one: Writer, other: Writer) -> None:
    """Transactions after which no kind of message is missing, whatever chance brings later."""
    one.begin()
    one.insert(500)
    other.begin()
    other.insert(1)
    other.end("COMMIT")
    one.savepoint()
    one.insert(500)
    one.rollback_to()
    one.insert(500)
    one.insert(1, 9000)
    one.touch()
    one.end("COMMIT")
    for count in (500, 1):
        for commit in (True, False):
            one.begin()
            one.insert(count)
            one.end("PREPARE")
            one.settle(commit=commit)
    one.begin()
    one.savepoint()
    one.insert(1)
    one.release()
    one.insert(500)
    one.end("ROLLBACK")
