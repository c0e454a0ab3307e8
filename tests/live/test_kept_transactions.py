"""Transactions of real servers that are kept for later, in lists, by threads and tasks."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

import pgrepl
from tests.live.streams import TABLE, Connect, confirmed, create_slot
from tests.live.test_change_streams import insert, keys
from tests.support.clusters import Database


class TestPassedOver:
    def test_five_in_a_list(self, database: Database, connect: Connect) -> None:
        """Four of them were passed over: they are errors, and nothing of them is confirmed."""
        database.execute(TABLE)
        slot = create_slot(database)
        insert(database, *range(5))
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            kept = list(islice(stream.transactions(), 5))
            for transaction in kept[:4]:
                with pytest.raises(pgrepl.UsageError, match="before the next one is asked for"):
                    keys(transaction)
                with pytest.raises(pgrepl.UsageError, match="read before it is acknowledged"):
                    stream.ack(transaction)
            assert keys(kept[4]) == [4]
        assert confirmed(database, slot) < kept[0].end_lsn
        with (
            connect(database.dsn()) as connection,
            connection.stream(slot, publications=["p"]) as stream,
        ):
            lists: list[Any] = [each.read() for each in islice(stream.transactions(), 5)]
            assert [change.new["id"] for changes in lists for change in changes] == [*range(5)]
