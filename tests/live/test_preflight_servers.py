"""What is found before a stream begins, on servers of its own: lost slots, promotions, standbys."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgrepl
from pgrepl import errors
from pgrepl.resume import ResumeToken
from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account
from tests.live.streams import (
    PATIENCE,
    TABLE,
    confirmed,
    create_slot,
    eventually,
    meanwhile,
    receive_transactions,
    start_pgoutput,
    wait_until_free,
)
from tests.live.test_preflight import insert, look, look_at, token_of
from tests.support.clusters import Cluster, Database


@contextlib.contextmanager
def fresh(cluster: Cluster, **settings: str) -> Iterator[Database]:
    """A server of the same version with these settings, for one test."""
    with TemporaryServer(cluster.own.bin_directory, settings=settings) as server:
        yield seen(server)


def seen(server: TemporaryServer) -> Database:
    """Its first database, with a table and a publication once somebody makes them."""
    parameters = {"host": server.host, "port": server.port, "user": "postgres"}
    return Database(Cluster(parameters, server=server), "postgres")


def has_been_lost(database: Database, slot: str) -> bool:
    database.execute("CHECKPOINT")
    return database.execute(
        "SELECT 1 FROM pg_replication_slots WHERE slot_name = %s AND wal_status = 'lost'", [slot]
    ) == [(1,)]


def expect_lost(database: Database, slot: str, reason: str) -> errors.SlotInvalidated:
    """The preflight and START_REPLICATION itself say the same, as far as the version tells."""
    told = reason if database.cluster.major >= 17 else None
    with pytest.raises(errors.SlotInvalidated, match=slot) as caught:
        look_at(database, slot)
    assert (caught.value.reason, caught.value.retryable) == (told, False)
    with pgrepl.connect(database.dsn()) as connection:
        with pytest.raises(errors.SlotInvalidated, match=slot) as from_server:
            start_pgoutput(connection, slot)
        assert from_server.value.reason == (reason if database.cluster.major >= 18 else None)
        assert connection.identify_system().dbname == database.name
    return caught.value


def test_a_slot_whose_wal_was_removed(own_cluster: Cluster) -> None:
    settings = {"max_slot_wal_keep_size": "1MB", "min_wal_size": "32MB", "max_wal_size": "32MB"}
    with fresh(own_cluster, **settings) as database:
        database.execute(TABLE)
        name = create_slot(database)

        def goes() -> bool:
            database.execute("SELECT pg_logical_emit_message(false, '', 'x')")
            database.execute("SELECT pg_switch_wal()")
            return has_been_lost(database, name)

        eventually(goes, "the slot is given up")
        error = expect_lost(database, name, "wal_removed")
        assert ("max_slot_wal_keep_size" in str(error)) is (own_cluster.major >= 17)


def test_a_slot_that_was_idle_for_too_long(own_cluster: Cluster) -> None:
    if own_cluster.major < 18:
        pytest.skip("idle_replication_slot_timeout is of PostgreSQL 18")
    with fresh(own_cluster, idle_replication_slot_timeout="1s") as database:
        database.execute(TABLE)
        name = create_slot(database)
        eventually(lambda: has_been_lost(database, name), "the slot is given up")
        assert "idle_replication_slot_timeout" in str(expect_lost(database, name, "idle_timeout"))


def test_after_a_promotion(own_cluster: Cluster) -> None:
    with fresh(own_cluster) as database:
        server = database.cluster.own
        database.execute(TABLE)
        name = create_slot(database)
        insert(database, 1)
        before = token_of(database, confirmed(database, name))
        server.stop()
        Path(server.data_directory, "standby.signal").touch()
        server.start()
        # Still the same timeline.
        assert before.timeline == 1
        database.execute("SELECT pg_promote()")
        insert(database, 2)
        found = look_at(database, name, start=before)
        assert (found.system.timeline, found.start) == (2, before.end_lsn)
        with pgrepl.connect(database.dsn()) as connection:
            start_pgoutput(connection, name, found.start)
            assert len(receive_transactions(connection, 2)) > 4
        # What the old timeline got to behind the point where it was left is not here.
        lost = ResumeToken(before.systemid, 1, found.system.xlogpos)
        wait_until_free(database, name)
        with pytest.raises(errors.SlotGap, match="left that timeline at") as caught:
            look_at(database, name, start=lost)
        assert before.end_lsn < caught.value.available < caught.value.wanted == lost.end_lsn
        switch = ResumeToken(before.systemid, 1, caught.value.available)
        assert look_at(database, name, start=switch).start == caught.value.available
        Path(server.data_directory, "pg_wal", "00000002.history").unlink()
        with pytest.raises(pgrepl.ServerError, match="without the history of timeline 2") as gone:
            look_at(database, name, start=before)
        assert gone.value.sqlstate == "58P01"


@contextlib.contextmanager
def standby_of(primary: Database) -> Iterator[Database]:
    """A standby that streams from it."""
    source = primary.cluster.own
    with TemporaryServer(source.bin_directory) as server:
        server.stop()
        shutil.rmtree(server.data_directory)
        subprocess.run(
            [str(server.bin_directory / "pg_basebackup"), "--dbname", source.dsn()]
            + ["--pgdata", str(server.data_directory), "--checkpoint", "fast", "--no-sync"],
            check=True,
            capture_output=True,
        )
        Path(server.data_directory, "standby.signal").touch()
        # Not by pg_basebackup, whose libpq may know options that the server's does not.
        with Path(server.data_directory, "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{source.dsn()}'\n")
        give(server.data_directory, server_account())
        server.start()
        yield seen(server)


def create_slot_on(standby: Database, primary: Database) -> None:
    """Make the slot `s`, which takes the primary to say which transactions are running."""
    with (
        pgrepl.connect(standby.dsn()) as connection,
        meanwhile(lambda: connection.create_logical_slot("s", timeout=PATIENCE)) as made,
    ):
        eventually(
            lambda: primary.execute("SELECT pg_log_standby_snapshot()") and made.done(),
            "the slot is made",
        )


def test_on_a_standby(own_cluster: Cluster) -> None:
    if own_cluster.major < 16:
        pytest.skip("before 16 a standby has no logical slots")
    with fresh(own_cluster) as primary:
        primary.execute(TABLE)
        with standby_of(primary) as standby:
            create_slot_on(standby, primary)
            assert standby.execute("SELECT pg_is_in_recovery()") == [(True,)]
            token = token_of(standby, confirmed(standby, "s"))
            found = look_at(standby, "s", start=token)
            assert found.start == token.end_lsn
            assert found.system.systemid == token_of(primary, 1).systemid
            insert(primary, 1)
            with pgrepl.connect(standby.dsn()) as connection:
                start_pgoutput(connection, "s", look(connection, "s", start=token).start)
                assert receive_transactions(connection, 1)
            with pytest.raises(errors.SlotGap, match="standby that lags behind"):
                look_at(standby, "s", start=pgrepl.Lsn(found.system.xlogpos + (1 << 30)))
            # Without hot_standby_feedback the primary removes what the slot needs.
            primary.execute("CREATE TABLE gone ()")
            primary.execute("DROP TABLE gone")
            with primary.connect() as session:
                session.execute("VACUUM FULL pg_class")

            def goes() -> bool:
                insert(primary, len(primary.execute("SELECT 1 FROM item")) + 1)
                return standby.execute(
                    "SELECT 1 FROM pg_replication_slots WHERE wal_status = 'lost'"
                ) == [(1,)]

            eventually(goes, "the slot is given up")
            error = expect_lost(standby, "s", "rows_removed")
            assert "recovery" in str(error) or "hot_standby_feedback" in str(error)
