"""Every finding of a preflight made for real, and what the servers do where nobody looks before."""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

import pgrepl
from pgrepl import errors
from pgrepl.protocol.preflight import Preflight, preflight
from pgrepl.resume import ResumeToken
from tests.live.streams import (
    PATIENCE,
    TABLE,
    confirmed,
    create_slot,
    receive_data,
    receive_transactions,
    start_pgoutput,
    wait_until_free,
)
from tests.support.clusters import Cluster, Database
from tests.support.inside import wire_of

AWKWARD = ["it's", "back\\slash", "x' OR 'x' = 'x", 'a"b,c', "Ünïcödé", "\\'; DROP TABLE item; --"]


def look(
    connection: pgrepl.Connection, slot: str, *publications: str, start: Any = None
) -> Preflight:
    """Run the conversation; the publication is `p` unless others are named."""
    found = preflight(wire_of(connection).server, slot, publications or ("p",), start)
    checked: Preflight = wire_of(connection).run(found, PATIENCE)
    return checked


def look_at(database: Database, slot: str, *publications: str, start: Any = None) -> Preflight:
    """The same over a connection of its own."""
    with pgrepl.connect(database.dsn()) as connection:
        return look(connection, slot, *publications, start=start)


def token_of(database: Database, position: int) -> ResumeToken:
    """A token for this position on the database's server."""
    with pgrepl.connect(database.dsn()) as connection:
        system = connection.identify_system()
    return ResumeToken(system.systemid, system.timeline, pgrepl.Lsn(position))


def insert(database: Database, *ids: int) -> None:
    """Commit a transaction for each."""
    for each in ids:
        database.execute("INSERT INTO item VALUES (%s, 'x')", [each])


def rows_of(messages: list[Any]) -> list[str]:
    """The ids of inserted rows: of the tuple's two columns as text the first one."""
    payloads = [bytes(each.data) for each in messages]
    found = [payload for payload in payloads if payload[:1] == b"I"]
    # 'I', relation, 'N', two columns, 't', a length, and there it is.
    return [row[13 : 13 + int.from_bytes(row[9:13], "big")].decode() for row in found]


def end_of(commit: Any) -> pgrepl.Lsn:
    """Where the transaction of this Commit's payload ends."""
    return pgrepl.Lsn(int.from_bytes(bytes(commit.data)[10:18], "big"))


@pytest.fixture
def slot(database: Database) -> str:
    """A pgoutput slot in a database with a table, `item`, and a publication, `p`."""
    database.execute(TABLE)
    return create_slot(database)


# All is well


def test_what_is_found(database: Database, slot: str) -> None:
    with pgrepl.connect(database.dsn(), options="-c wal_sender_timeout=7500") as connection:
        found = look(connection, slot)
        assert found.system.dbname == database.name
        assert connection.identify_system().systemid == found.system.systemid
        assert found.wal_sender_timeout == 7.5
    assert found.start == confirmed(database, slot)
    state = found.slot
    assert (state.name, state.plugin, state.slot_type) == (slot, "pgoutput", "logical")
    assert (state.database, state.temporary, state.active_pid) == (database.name, False, None)
    assert (state.wal_status, state.two_phase) == ("reserved", False)
    assert state.invalidation_reason is None
    newer = {"conflicting": 16, "failover": 17, "synced": 17}
    for name, since in newer.items():
        assert getattr(state, name) is (False if database.cluster.major >= since else None)
    [(restart, flushed)] = database.execute(
        "SELECT restart_lsn::text, confirmed_flush_lsn::text FROM pg_replication_slots"
        " WHERE slot_name = %s",
        [slot],
    )
    assert (state.restart_lsn, state.confirmed_flush_lsn) == (
        pgrepl.Lsn(restart),
        pgrepl.Lsn(flushed),
    )


@pytest.mark.parametrize(
    ("setting", "seconds"), [("0", 0.0), ("2min", 120.0), ("1500us", 0.002), ("1d", 86400.0)]
)
def test_how_long_the_server_waits(
    database: Database, slot: str, setting: str, seconds: float
) -> None:
    with pgrepl.connect(database.dsn(), options=f"-c wal_sender_timeout={setting}") as connection:
        assert look(connection, slot).wal_sender_timeout == seconds


def test_a_stream_begins_where_it_says(database: Database, slot: str) -> None:
    insert(database, 1, 2, 3)
    with pgrepl.connect(database.dsn()) as connection:
        start_pgoutput(connection, slot, look(connection, slot).start)
        messages = receive_transactions(connection, 3)
    commits = [each for each in messages if bytes(each.data)[:1] == b"C"]
    wait_until_free(database, slot)
    token = ResumeToken.parse(str(token_of(database, end_of(commits[1]))))
    with pgrepl.connect(database.dsn()) as connection:
        found = look(connection, slot, start=token)
        assert found.start == token.end_lsn
        assert found.start > found.slot.confirmed_flush_lsn
        start_pgoutput(connection, slot, found.start)
        again = receive_transactions(connection, 1)
    assert end_of(again[-1]) == end_of(commits[2])


def test_a_temporary_slot_of_this_connection(database: Database, slot: str) -> None:
    with pgrepl.connect(database.dsn()) as connection:
        name = connection.create_logical_slot(database.slot("mine"), temporary=True).name
        found = look(connection, name)
        assert (found.slot.temporary, found.slot.active_pid) == (True, connection.pid)
        with pytest.raises(errors.SlotInUse) as caught:
            look_at(database, name)
        assert caught.value.pid == connection.pid
        insert(database, 1)
        start_pgoutput(connection, name, found.start)
        assert receive_transactions(connection, 1)


def test_inside_of_a_transaction(database: Database, slot: str) -> None:
    with pgrepl.connect(database.dsn()) as connection:
        connection.query("BEGIN")
        assert look(connection, slot).slot.name == slot
        with pytest.raises(pgrepl.ServerError):
            connection.query("SELECT 1/0")
        with pytest.raises(pgrepl.ServerError) as caught:
            look(connection, slot)
        assert caught.value.sqlstate == "25P02"


# The slot


def test_no_such_slot(database: Database, slot: str) -> None:
    with pgrepl.connect(database.dsn()) as connection:
        # What is too long is no abbreviation of another one.
        longest = connection.create_logical_slot(database.slot("x" * 63)[:63]).name
        for name in (database.slot("other"), "Upper", "a'b", "back\\slash"):
            with pytest.raises(pgrepl.SlotNotFound) as caught:
                look(connection, name)
            assert name in caught.value.message
            assert caught.value.retryable is False
        with pytest.raises(pgrepl.UsageError, match="at most 63 bytes"):
            look(connection, longest + "x")
        assert look(connection, longest).slot.name == longest


def test_a_slot_for_something_else(database: Database, slot: str) -> None:
    physical = database.slot("physical")
    database.execute("SELECT pg_create_physical_replication_slot(%s)", [physical])
    other_plugin = create_slot(database, "decoding", plugin="test_decoding")
    with pytest.raises(pgrepl.UsageError, match="expected a logical slot .* is 'physical'"):
        look_at(database, physical)
    with pytest.raises(pgrepl.UsageError, match="is of plugin 'test_decoding'"):
        look_at(database, other_plugin)
    with (
        pgrepl.connect(database.dsn(dbname="postgres")) as connection,
        pytest.raises(pgrepl.UsageError, match=f"'postgres'.* is of database '{database.name}'"),
    ):
        look(connection, slot)
    with (
        pgrepl.connect(database.dsn(), replication="physical") as connection,
        pytest.raises(pgrepl.UsageError, match="replication='database'"),
    ):
        look(connection, slot)


def test_a_slot_that_somebody_holds(database: Database, slot: str) -> None:
    with pgrepl.connect(database.dsn()) as holder:
        start_pgoutput(holder, slot)
        with pytest.raises(pgrepl.SlotInUse, match=slot) as caught:
            look_at(database, slot)
        assert (caught.value.pid, caught.value.retryable) == (holder.pid, True)
        with (
            pgrepl.connect(database.dsn()) as other,
            pytest.raises(pgrepl.SlotInUse) as from_server,
        ):
            start_pgoutput(other, slot)
        assert from_server.value.message == caught.value.message
        assert (from_server.value.pid, from_server.value.retryable) == (holder.pid, True)
    wait_until_free(database, slot)
    assert look_at(database, slot).slot.active_pid is None


# Positions


def test_a_slot_that_was_dropped_and_created_again(database: Database, slot: str) -> None:
    token = token_of(database, confirmed(database, slot))
    assert look_at(database, slot, start=token).start == token.end_lsn
    insert(database, 1)
    database.execute("SELECT pg_drop_replication_slot(%s)", [slot])
    assert create_slot(database) == slot
    insert(database, 2)
    with pytest.raises(errors.SlotGap) as caught:
        look_at(database, slot, start=token)
    assert caught.value.wanted == token.end_lsn
    assert caught.value.available == confirmed(database, slot)
    assert str(caught.value.wanted) in caught.value.message
    assert str(caught.value.available) in caught.value.message
    # A position alone cannot be told from one that an idle stream has left behind.
    assert look_at(database, slot, start=token.end_lsn).start == confirmed(database, slot)
    # What the error is for: the server leaves the first row out and says nothing.
    with pgrepl.connect(database.dsn()) as connection:
        start_pgoutput(connection, slot, token.end_lsn)
        messages = receive_transactions(connection, 1)
    assert rows_of(messages) == ["2"]


def test_a_slot_that_was_advanced(database: Database, slot: str) -> None:
    token = token_of(database, confirmed(database, slot))
    insert(database, 1)
    database.execute("SELECT pg_replication_slot_advance(%s, pg_current_wal_flush_lsn())", [slot])
    with pytest.raises(errors.SlotGap) as caught:
        look_at(database, slot, start=token)
    assert (caught.value.wanted, caught.value.available) == (
        token.end_lsn,
        confirmed(database, slot),
    )
    assert look_at(database, slot, start=caught.value.available).start == caught.value.available
    assert look_at(database, slot).start == caught.value.available


def test_a_server_that_has_not_come_so_far(database: Database, slot: str) -> None:
    ahead = look_at(database, slot).system.xlogpos + (1 << 30)
    with pytest.raises(errors.SlotGap) as caught:
        look_at(database, slot, start=token_of(database, ahead))
    assert caught.value.wanted == ahead
    assert confirmed(database, slot) <= caught.value.available < ahead


def test_a_token_of_another_server(database: Database, slot: str) -> None:
    theirs = token_of(database, confirmed(database, slot))
    other = ResumeToken(str(int(theirs.systemid) ^ 1), theirs.timeline, theirs.end_lsn)
    later = ResumeToken(theirs.systemid, theirs.timeline + 1, theirs.end_lsn)
    for token in (other, later):
        with pytest.raises(errors.SystemMismatch) as caught:
            look_at(database, slot, start=token)
        assert caught.value.expected == (token.systemid, token.timeline)
        assert caught.value.got == (theirs.systemid, theirs.timeline)


# Publications


def test_a_publication_that_is_missing(database: Database, slot: str) -> None:
    longest = "x" * 63
    database.execute(sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(longest)))
    look_at(database, slot, "p", longest)
    for names in (("q",), ("P",), ("p ",), (longest + "x",), ("p", "q", "r")):
        with pytest.raises(errors.PublicationNotFound) as caught:
            look_at(database, slot, *names)
        assert caught.value.names == tuple(name for name in names if name != "p")


@pytest.mark.parametrize("conforming", ["on", "off"])
def test_names_of_publications(database: Database, slot: str, conforming: str) -> None:
    options = f"-c standard_conforming_strings={conforming} -c escape_string_warning=on"
    with pgrepl.connect(database.dsn(), options=options) as connection:
        with pytest.raises(errors.PublicationNotFound) as caught:
            look(connection, slot, *AWKWARD)
        assert caught.value.names == tuple(AWKWARD)
        for name in AWKWARD:
            database.execute(sql.SQL("CREATE PUBLICATION {}").format(sql.Identifier(name)))
        assert look(connection, slot, *AWKWARD).slot.name == slot


def test_a_publication_that_came_too_late(database: Database, slot: str) -> None:
    insert(database, 1)
    with pytest.raises(errors.PublicationNotFound, match="as of each change") as caught:
        look_at(database, slot, "late")
    database.execute("CREATE PUBLICATION late FOR ALL TABLES")
    insert(database, 2)
    with pgrepl.connect(database.dsn()) as connection:
        start = look(connection, slot, "late").start
        start_pgoutput(connection, slot, start, publication_names="late")
        if database.cluster.major < 18:
            assert "end the stream" in str(caught.value)
            with pytest.raises(errors.PublicationNotFound) as later:
                receive_data(connection)
                receive_data(connection)
            assert (later.value.names, later.value.sqlstate) == (("late",), "42704")
            assert later.value.lsn is not None
            assert start <= later.value.lsn
            assert "pg_replication_slot_advance(slot" in str(later.value)
        else:
            assert "are left out" in str(caught.value)
            assert rows_of(receive_transactions(connection, 1)) == ["2"]


# Who asks


def test_a_search_path_that_leads_astray(database: Database, slot: str) -> None:
    database.execute("""
        CREATE SCHEMA evil;
        CREATE FUNCTION evil.yes(text, text) RETURNS bool LANGUAGE sql AS 'SELECT true';
        CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.yes);
        CREATE FUNCTION evil.pg_backend_pid() RETURNS int LANGUAGE sql AS 'SELECT 1';
        CREATE VIEW evil.pg_publication AS SELECT 'q'::name AS pubname;
        CREATE VIEW evil.pg_settings AS
            SELECT 'wal_sender_timeout'::text AS name, '1'::text AS setting;
        CREATE VIEW evil.pg_replication_slots AS SELECT * FROM pg_catalog.pg_replication_slots;
        CREATE DOMAIN evil.text AS int;
    """)
    options = "-c search_path=evil,pg_catalog -c wal_sender_timeout=9s"
    with pgrepl.connect(database.dsn(), options=options) as connection:
        # The trap works.
        [trapped] = connection.query("SELECT 'a'::pg_catalog.text = 'b'::pg_catalog.text")
        assert trapped.rows == [("t",)]
        assert look(connection, slot).wal_sender_timeout == 9.0
        with pytest.raises(pgrepl.SlotNotFound):
            look(connection, database.slot("other"))
        with pytest.raises(errors.PublicationNotFound):
            look(connection, slot, "q")


def test_a_role_with_no_right_but_to_replicate(
    own_cluster: Cluster, database: Database, slot: str
) -> None:
    assert own_cluster is database.cluster
    with pgrepl.connect(database.dsn(user="u_trust")) as connection:
        assert look(connection, slot).slot.name == slot
        for view in ("pg_replication_slots", "pg_publication", "pg_settings"):
            database.execute(f"REVOKE SELECT ON pg_catalog.{view} FROM PUBLIC")
            with pytest.raises(pgrepl.ServerError, match="GRANT SELECT") as caught:
                look(connection, slot)
            assert (caught.value.sqlstate, caught.value.retryable) == ("42501", False)
            assert view in caught.value.message
            database.execute(f"GRANT SELECT ON pg_catalog.{view} TO PUBLIC")
        assert look(connection, slot).slot.name == slot


# Servers of their own: what would disturb others
