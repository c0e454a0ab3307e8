"""Ctrl-C wherever it comes, and a program that goes on reading afterwards: the stream refuses that,
or nothing is missing."""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
from types import FrameType
from typing import Any

import pgrepl
from tests.live.sampling import insert
from tests.live.streams import TABLE, create_slot, wait_until_free
from tests.live.test_interruptions import Interruption
from tests.support.clusters import Database


class BetweenGenerators(Interruption):
    """Not where a generator is entered: Python 3.11 gets that wrong where a profiler does it."""

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or not frame.f_code.co_flags & inspect.CO_GENERATOR:
            super()._look(frame, event, argument)


class Reading:
    """Keeps changes as they come, in as many attempts as it takes; looks into them only with the
    interruption off, since that can be interrupted as well."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._transaction: Any = None
        self._changes: list[Any] = []

    def read(self, last: int) -> None:
        """Go on where it was left, up to the row with that id."""
        if self._transaction is not None:
            self._read_changes()
        if self.rows[-1:] != [last]:
            for transaction in self._stream.transactions():
                self._transaction = transaction
                self._read_changes()
                if self.rows[-1:] == [last]:
                    return

    def _read_changes(self) -> None:
        for change in self._transaction:
            self._changes.append(change)

    @property
    def rows(self) -> list[int]:
        """The ids of the rows that have come."""
        profile = sys.getprofile()
        sys.setprofile(None)
        try:
            return [change.new["id"] for change in self._changes]
        finally:
            sys.setprofile(profile)


def test_interruption_of_reading(database: Database) -> None:
    database.execute(TABLE)
    slot = create_slot(database)
    place, survived, going = 0, 0, True
    while going:
        place += 1
        first = 10 * place
        insert(database, first, first + 1, first + 2)
        with pgrepl.connect(database.dsn(sslmode="disable")) as connection:
            stream = connection.stream(slot, publications=["p"])
            reading = Reading(stream)
            interruption = BetweenGenerators(place)
            # What the collector calls is not interrupted: nobody would hear of it.
            gc.disable()
            with contextlib.suppress(KeyboardInterrupt), interruption:
                reading.read(first + 2)
            gc.enable()
            going = interruption.happened
            if going:
                insert(database, first + 3)
                with contextlib.suppress(pgrepl.UsageError, pgrepl.ConnectionFailed):
                    reading.read(first + 3)
                    survived += 1
            assert reading.rows == [*range(first, first + 4)][: len(reading.rows)], place
            connection.disconnect()
            stream.stop()
        wait_until_free(database, slot)
        database.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [slot])
    assert place > 100
    assert 1 <= survived < place
