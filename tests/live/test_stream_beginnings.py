"""Where a stream begins that was given a position, and with publications that are not there, or
were not there yet; in both flavours."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from typing import Any

import pytest

import pgrepl
from tests.live.streams import PATIENCE, TABLE, confirmed, create_slot, eventually, wait_until_free
from tests.support.clusters import Database

FLAVOURS = pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])


@pytest.fixture
def slot(database: Database) -> str:
    """A slot that has missed nothing of the table and its publication."""
    database.execute(TABLE)
    return create_slot(database)


def insert(database: Database, number: int) -> None:
    database.execute("INSERT INTO item VALUES (%s)", [number])


def read(
    database: Database, slot: str, count: int, is_async: bool, **options: Any
) -> tuple[pgrepl.Lsn, list[Any]]:
    """Where a stream begins, and the keys of so many transactions, which are acknowledged."""
    options.setdefault("publications", ["p"])
    keys: list[Any] = []
    if not is_async:
        with (
            pgrepl.connect(database.dsn()) as connection,
            connection.stream(slot, **options) as stream,
        ):
            for transaction in stream.transactions():
                keys += [change.new["id"] for change in transaction]
                stream.ack(transaction)
                if len(keys) >= count:
                    break
        wait_until_free(database, slot)
        return stream.start, keys

    async def consume() -> pgrepl.Lsn:
        async with (
            pgrepl.AsyncConnection.connect(database.dsn()) as connection,
            connection.stream(slot, **options) as stream,
        ):
            async for transaction in stream.transactions():
                keys.extend([change.new["id"] async for change in transaction])
                stream.ack(transaction)
                if len(keys) >= count:
                    break
        return stream.start

    start = asyncio.run(asyncio.wait_for(consume(), PATIENCE))
    wait_until_free(database, slot)
    return start, keys


@contextlib.contextmanager
def warnings_of_streams(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """What logger pgrepl.stream warns of meanwhile."""
    said: list[str] = []
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pgrepl.stream"):
        yield said
    said += [r.getMessage() for r in caplog.records if r.name == "pgrepl.stream"]


# Positions


def idle(database: Database, slot: str, kept: pgrepl.Lsn) -> None:
    """Stream on where nothing comes, until the slot has passed a position with its restart_lsn
    too."""
    with (
        pgrepl.connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"], status_interval=0.1) as stream,
    ):

        def has_passed() -> bool:
            database.cluster.execute("CHECKPOINT")  # which is WAL, if there was any before it
            database.execute("CREATE TABLE IF NOT EXISTS other (); DROP TABLE other")
            with contextlib.suppress(TimeoutError):
                for event in stream.receive(timeout=0.05):
                    stream.ack(event.position)
            [(restart,)] = database.execute(
                "SELECT restart_lsn - '0/0' FROM pg_replication_slots WHERE slot_name = %s", [slot]
            )
            return restart > kept

        eventually(has_passed, "the idle slot has passed the position")
    wait_until_free(database, slot)


@FLAVOURS
def test_who_keeps_the_end_of_the_last_transaction_goes_on_behind_it(
    database: Database, slot: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """As PostgreSQL's own apply workers do. The restart_lsn of the slot says nothing either."""
    insert(database, 1)
    with (
        pgrepl.connect(database.dsn()) as connection,
        connection.stream(slot, publications=["p"]) as stream,
    ):
        transaction = next(stream.transactions())
        assert [change.new["id"] for change in transaction] == [1]
        assert transaction.end_lsn is not None
        kept = transaction.end_lsn
        stream.ack(transaction)
    wait_until_free(database, slot)
    idle(database, slot, kept)
    insert(database, 2)
    passed = confirmed(database, slot)
    with warnings_of_streams(caplog) as said:
        assert read(database, slot, 1, is_async, start=kept) == (passed, [2])
    assert len(said) == 1
    assert f"the stream begins at {pgrepl.Lsn(passed)}, " in said[0]
    assert f"and not at {kept} as asked for" in said[0]
    with warnings_of_streams(caplog) as said, pgrepl.connect(database.dsn()) as connection:
        system = connection.identify_system()
        token = pgrepl.ResumeToken(system.systemid, system.timeline, kept)
        with pytest.raises(pgrepl.SlotGap):
            connection.stream(slot, publications=["p"], start=token)
        with pytest.raises(pgrepl.SlotGap):
            connection.stream(slot, publications=["p"], start=pgrepl.Lsn("FF/0"))
    assert said == []


@FLAVOURS
def test_a_raw_stream_likewise(
    database: Database, slot: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"proto_version": "1", "publication_names": "p"}
    passed = pgrepl.Lsn(confirmed(database, slot))

    async def begun() -> pgrepl.Lsn:
        async with (
            pgrepl.AsyncConnection.connect(database.dsn()) as connection,
            connection.stream_raw(slot, options=options, start=pgrepl.Lsn(1)) as stream,
        ):
            return stream.start

    with warnings_of_streams(caplog) as said:
        if is_async:
            assert asyncio.run(begun()) == passed
        else:
            with (
                pgrepl.connect(database.dsn()) as connection,
                connection.stream_raw(slot, options=options, start=pgrepl.Lsn(1)) as stream,
            ):
                assert stream.start == passed
    assert len(said) == 1
    assert f"begins at {passed}, " in said[0]


# Publications


@FLAVOURS
def test_what_the_slot_has_of_a_publication_that_was_dropped(
    database: Database, slot: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    database.execute("CREATE TABLE more (id int PRIMARY KEY); CREATE PUBLICATION q FOR TABLE more")
    database.execute("DROP PUBLICATION p; CREATE PUBLICATION p FOR TABLE item")
    database.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [slot])
    database.execute("INSERT INTO more VALUES (1)")
    database.execute("DROP PUBLICATION q")
    with pytest.raises(pgrepl.PublicationNotFound, match='on_missing_publication="warn"') as caught:
        read(database, slot, 1, is_async, publications=["p", "q"])
    assert (caught.value.names, caught.value.lsn) == (("q",), None)
    ignored: dict[str, Any] = {"publications": ["p", "q"], "on_missing_publication": "warn"}
    with warnings_of_streams(caplog) as said:
        assert read(database, slot, 1, is_async, **ignored)[1] == [1]
    assert len(said) == 1
    assert 'found none of the name "q"' in said[0]
    insert(database, 2)
    if database.cluster.major < 18:
        with pytest.raises(pgrepl.PublicationNotFound) as caught:
            read(database, slot, 1, is_async, **ignored)
        assert caught.value.names == ("q",)
        assert "Where it was dropped: leave it out" in str(caught.value)
        ignored["publications"].remove("q")
    assert read(database, slot, 1, is_async, **ignored)[1] == [2]


@FLAVOURS
def test_a_publication_that_is_younger_than_a_change(
    database: Database, slot: str, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    insert(database, 1)
    database.execute("CREATE PUBLICATION young FOR ALL TABLES")
    insert(database, 2)
    before = confirmed(database, slot)
    if database.cluster.major < 18:
        with pytest.raises(pgrepl.PublicationNotFound) as caught:
            read(database, slot, 1, is_async, publications=["young"])
        assert caught.value.names == ("young",)
        assert caught.value.lsn is not None
        assert before <= caught.value.lsn
        assert "did not exist yet" in str(caught.value)
        # What the hint says.
        wait_until_free(database, slot)
        database.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_lsn())", [slot])
        insert(database, 3)
        assert read(database, slot, 1, is_async, publications=["young"])[1] == [3]
        return
    with caplog.at_level(logging.WARNING, "pgrepl.notice"):
        assert read(database, slot, 1, is_async, publications=["young"])[1] == [2]
    [said] = [r.getMessage() for r in caplog.records if r.name == "pgrepl.notice"]
    assert "skipped loading publication" in said
    assert "DETAIL: 'The publication does not exist at this point in the WAL.'" in said
    assert "HINT: 'Create the publication if it does not exist." in said
    assert "copy its tables' LSN: " in said


def test_what_to_do_about_a_missing_publication_is_one_of_two_words(
    database: Database, slot: str
) -> None:
    with (
        pgrepl.connect(database.dsn()) as connection,
        pytest.raises(pgrepl.UsageError, match="on_missing_publication 'raise' or 'warn'"),
    ):
        connection.stream(
            slot,
            publications=["p"],
            on_missing_publication="skip",  # type: ignore[arg-type]
        )
