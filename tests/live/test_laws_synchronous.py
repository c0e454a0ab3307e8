"""A stream as the synchronous standby: COMMIT waits for the position that was asked for, no less
and no longer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from tests.live.sampling import Consumer, Watch, replies
from tests.live.streams import PATIENCE, Connect, eventually, meanwhile
from tests.support.clusters import Database

SCHEMA = """
    CREATE TABLE item (id int PRIMARY KEY, note text);
    CREATE TABLE unpublished (id int);
    CREATE PUBLICATION p FOR TABLE item
"""

# The acknowledgements of a transaction, each going further than the one before.
STEPS: list[dict[str, bool]] = [{"flushed": False, "applied": False}, {"applied": False}, {}]


@pytest.fixture
def watch(database: Database) -> Iterator[Watch]:
    """A slot under watch, with one table that is published and one that is not."""
    database.execute(SCHEMA)
    with Watch(database) as watching:
        yield watching


@pytest.fixture
def standby(database: Database) -> Iterator[str]:
    """The name of the application that commits wait for, of sessions that ask for it."""
    assert database.cluster.own.is_running
    name = database.slot("standby")
    with database.cluster.connect() as connection:
        try:
            # All other sessions of the server go on as ever.
            connection.execute("ALTER SYSTEM SET synchronous_commit = local")
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'".encode())
            connection.execute("SELECT pg_reload_conf()")
            yield name
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("ALTER SYSTEM RESET synchronous_commit")
            connection.execute("SELECT pg_reload_conf()")


@contextlib.contextmanager
def committing(database: Database, level: str, statement: str) -> Iterator[tuple[int, Future[Any]]]:
    """Run a statement in a session of that `synchronous_commit`; its server process and outcome."""
    with database.connect(options=f"-c synchronous_commit={level}") as session:

        def run() -> None:
            session.execute(statement.encode())

        with meanwhile(run) as outcome:
            try:
                yield session.info.backend_pid, outcome
            except BaseException:
                session.cancel()
                raise


def waits(database: Database, pid: int) -> bool:
    """Whether a server process waits for the standby."""
    return bool(
        database.cluster.execute(
            "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'", [pid]
        )
    )


def wait_until_synchronous(database: Database, pid: int) -> None:
    eventually(
        lambda: database.cluster.execute(
            "SELECT 1 FROM pg_stat_replication WHERE pid = %s AND sync_state = 'sync'", [pid]
        ),
        "the stream becomes the synchronous standby",
    )


@pytest.mark.parametrize(("level", "enough"), [("remote_write", 0), ("on", 1), ("remote_apply", 2)])
def test_commit_waits_for_its_position(
    database: Database, watch: Watch, standby: str, connect: Connect, level: str, enough: int
) -> None:
    with connect(database.dsn(application_name=standby)) as connection:
        stream = connection.stream(watch.slot, publications=["p"], status_interval=0.1)
        with Consumer(stream) as consumer:
            wait_until_synchronous(database, connection.pid)
            for number in (1, 2):
                statement = f"INSERT INTO item VALUES ({number}, '')"
                with committing(database, level, statement) as (writer, outcome):
                    transaction = consumer.wait_for(number)[-1]
                    eventually(lambda: waits(database, writer), "the commit waits")  # noqa: B023
                    for step in STEPS[:enough]:
                        watch.ack(stream, transaction, **step)
                        # Two of them are dealt with when the third one shows.
                        statuses = replies(database, connection.pid)
                        for _ in range(3):
                            next(statuses)
                        assert waits(database, writer)
                    watch.ack(stream, transaction, **STEPS[enough])
                    outcome.result(PATIENCE)
                watch.ack(stream, transaction)


def test_commit_of_what_is_not_published(
    database: Database, watch: Watch, standby: str, connect: Connect
) -> None:
    """An idle stream has nothing to acknowledge, and nobody may wait for that."""
    with connect(
        database.dsn(application_name=standby), options="-c wal_sender_timeout=0"
    ) as connection:
        stream = connection.stream(watch.slot, publications=["p"], status_interval=600)
        # Versions before 15 send such a transaction, without a change.
        with Consumer(stream, lambda transaction: watch.ack(stream, transaction)) as consumer:
            wait_until_synchronous(database, connection.pid)
            for number in range(20):
                statement = f"INSERT INTO unpublished VALUES ({number})"
                with committing(database, "remote_apply", statement) as (_, outcome):
                    outcome.result(PATIENCE)
            with committing(database, "remote_apply", "INSERT INTO item VALUES (1, '')") as (_, it):
                it.result(PATIENCE)
            assert consumer.delivered[-1][1] == [1]


def test_commit_of_what_is_not_published_behind_what_is_not_acknowledged(
    database: Database, watch: Watch, standby: str, connect: Connect
) -> None:
    with connect(database.dsn(application_name=standby)) as connection:
        stream = connection.stream(watch.slot, publications=["p"], status_interval=0.1)
        with Consumer(stream) as consumer:
            wait_until_synchronous(database, connection.pid)
            database.execute("INSERT INTO item VALUES (1, '')")
            [transaction] = consumer.wait_for(1)
            with committing(database, "on", "INSERT INTO unpublished VALUES (1)") as (
                writer,
                outcome,
            ):
                eventually(lambda: waits(database, writer), "the commit waits")
                statuses = replies(database, connection.pid)
                for _ in range(3):
                    next(statuses)
                assert waits(database, writer)
                watch.ack(stream, transaction)
                outcome.result(PATIENCE)
