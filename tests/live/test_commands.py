"""Commands on a replication connection: SQL by the simple protocol, and what a command leaves
behind for the next one."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

import pgrepl
from tests.live.streams import PATIENCE, Connect, create_slot, eventually, start_pgoutput
from tests.support.clusters import Cluster, Database
from tests.support.flavours import FEW_FLAVOURS

pytestmark = pytest.mark.flavours(*FEW_FLAVOURS)


@pytest.fixture
def connection(cluster: Cluster, connect: Connect) -> Iterator[pgrepl.Connection]:
    """A connection to the database postgres, where nothing is written."""
    with connect(cluster.dsn()) as made:
        yield made


def works(connection: pgrepl.Connection) -> bool:
    """Whether the next answer is that of the next command, and whole."""
    return connection.query("SELECT 'next', 1; SELECT 'next', 2", timeout=PATIENCE) == [
        pgrepl.Result(("?column?", "?column?"), [("next", str(i))], "SELECT 1") for i in (1, 2)
    ]


# Answers


def test_several_statements(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        assert connection.query(
            "CREATE TABLE t (a int, b text);"
            " INSERT INTO t VALUES (1, 'x'), (2, NULL);"
            ' SELECT a, b AS "the b" FROM t ORDER BY a;'
            " SELECT FROM t; DELETE FROM t; SELECT * FROM t"
        ) == [
            pgrepl.Result((), [], "CREATE TABLE"),
            pgrepl.Result((), [], "INSERT 0 2"),
            pgrepl.Result(("a", "the b"), [("1", "x"), ("2", None)], "SELECT 2"),
            pgrepl.Result((), [(), ()], "SELECT 2"),
            pgrepl.Result((), [], "DELETE 2"),
            pgrepl.Result(("a", "b"), [], "SELECT 0"),
        ]


@pytest.mark.parametrize("sql", ["", ";", "  ", "-- nothing"])
def test_empty_query(connection: pgrepl.Connection, sql: str) -> None:
    assert connection.query(sql) == [pgrepl.Result((), [], "")]
    assert works(connection)


def test_null_and_empty_text_differ(connection: pgrepl.Connection) -> None:
    [result] = connection.query("SELECT NULL, '', 'NULL', NULL::int[]")
    assert result.rows == [(None, "", "NULL", None)]


def test_text_of_every_script(connection: pgrepl.Connection) -> None:
    text = "äöü ЖЩ 漢字 עברית 🐘 \u200d\ufeff \x01\x7f ''"
    [result] = connection.query(f"SELECT '{text}' AS \"Ключ 🐘\"")
    assert result.columns == ("Ключ 🐘",)
    assert result.rows == [(text.replace("''", "'"),)]


def test_long_answers(connection: pgrepl.Connection) -> None:
    [rows, wide] = connection.query(
        "SELECT i, repeat(chr(65 + i % 26), i % 100) FROM generate_series(1, 30000) i;"
        " SELECT repeat('0123456789', 1000000)",
        timeout=PATIENCE,
    )
    assert rows.rows == [(str(i), chr(65 + i % 26) * (i % 100)) for i in range(1, 30001)]
    assert wide.rows == [("0123456789" * 1_000_000,)]
    assert works(connection)


def test_many_columns(connection: pgrepl.Connection) -> None:
    [result] = connection.query(f"SELECT {', '.join(f'{i} AS c{i}' for i in range(1600))}")
    assert result.columns == tuple(f"c{i}" for i in range(1600))
    assert result.rows == [tuple(map(str, range(1600)))]


def test_transactions_span_queries(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        connection.query("CREATE TABLE t (a int)")
        connection.query("BEGIN; INSERT INTO t VALUES (1)")
        assert database.execute("SELECT * FROM t") == []
        connection.query("INSERT INTO t VALUES (2); COMMIT")
        assert database.execute("SELECT * FROM t ORDER BY a") == [(1,), (2,)]


# Errors


def test_error_and_then_the_next_command(connection: pgrepl.Connection) -> None:
    with pytest.raises(pgrepl.ServerError) as caught:
        connection.query("SELECT 1; SELECT no_such_column; SELECT 2")
    error = caught.value
    assert type(error) is pgrepl.ServerError
    assert (error.sqlstate, error.severity) == ("42703", "ERROR")
    assert "no_such_column" in error.message
    assert error.fields["position"] == "18"
    assert works(connection)


def test_error_in_the_middle_of_the_rows(connection: pgrepl.Connection) -> None:
    with pytest.raises(pgrepl.ServerError, match="division by zero") as caught:
        connection.query("SELECT 100 / (5000 - i) FROM generate_series(1, 9999) i")
    assert caught.value.sqlstate == "22012"
    assert works(connection)


def test_error_with_detail_and_hint(connection: pgrepl.Connection) -> None:
    with pytest.raises(pgrepl.ServerError) as caught:
        connection.query(
            "DO $$ BEGIN RAISE EXCEPTION 'it''s over' USING DETAIL = 'the detail',"
            " HINT = 'the hint', ERRCODE = 'ZZ042'; END $$"
        )
    error = caught.value
    assert (error.sqlstate, error.message) == ("ZZ042", "it's over")
    assert (error.detail, error.hint) == ("the detail", "the hint")
    assert str(error) == "ERROR ZZ042: it's over\nDETAIL: the detail\nHINT: the hint"
    assert works(connection)


def test_error_in_a_transaction(connection: pgrepl.Connection) -> None:
    with pytest.raises(pgrepl.ServerError):
        connection.query("BEGIN; SELECT no_such_column")
    with pytest.raises(pgrepl.ServerError) as caught:
        connection.query("SELECT 1")
    assert caught.value.sqlstate == "25P02"
    connection.query("ROLLBACK")
    assert works(connection)


def test_missing_objects_are_not_missing_slots(connection: pgrepl.Connection) -> None:
    # 42704, which is also the code for a slot that is not there.
    with pytest.raises(pgrepl.ServerError) as caught:
        connection.query("DROP TYPE no_such_type")
    assert caught.value.sqlstate == "42704"
    assert type(caught.value) is pgrepl.ServerError


def test_zero_byte_is_refused_before_anything_is_sent(connection: pgrepl.Connection) -> None:
    with pytest.raises(ValueError, match="zero byte"):
        connection.query("SELECT 1\0; SELECT 2")
    assert works(connection)


# What query() does not run


@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("COPY t FROM STDIN", "COPY FROM STDIN"),
        ("COPY t TO STDOUT", "COPY TO STDOUT"),
        ("SELECT 1; COPY (SELECT generate_series(1, 50000)) TO STDOUT; SELECT 2", "TO STDOUT"),
        ("COPY (SELECT 1 / (5 - i) FROM generate_series(1, 9) i) TO STDOUT", "COPY TO STDOUT"),
        ("INSERT INTO t VALUES (3); COPY t FROM STDIN WITH (FORMAT binary)", "COPY FROM STDIN"),
    ],
)
def test_copy_is_refused(database: Database, connect: Connect, sql: str, what: str) -> None:
    database.execute("CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2)")
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.UsageError, match=what):
            connection.query(sql, timeout=PATIENCE)
        assert works(connection)
        assert database.execute("SELECT * FROM t ORDER BY a") == [(1,), (2,)]


@pytest.mark.parametrize("replication", ["database", "physical"])
def test_start_replication_is_refused(cluster: Cluster, connect: Connect, replication: str) -> None:
    [(start,)] = cluster.execute("SELECT pg_current_wal_flush_lsn()::text")
    with connect(cluster.dsn(), replication=replication) as connection:
        with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
            connection.query(f"START_REPLICATION PHYSICAL {start}", timeout=PATIENCE)
        assert connection.identify_system(timeout=PATIENCE).timeline == 1


def test_no_logical_stream_after_one_that_was_refused(database: Database, connect: Connect) -> None:
    slot = create_slot(database)
    with connect(database.dsn()) as connection:
        with pytest.raises(pgrepl.UsageError, match=r"start_streaming\(\)"):
            connection.query(
                f"START_REPLICATION SLOT {slot} LOGICAL 0/0"
                " (proto_version '1', publication_names 'p')",
                timeout=PATIENCE,
            )
        # The server would end it at once.
        with pytest.raises(pgrepl.UsageError, match="open a new connection"):
            start_pgoutput(connection, slot)
        assert works(connection)


# Time limits


def test_time_limit_of_a_query(connection: pgrepl.Connection) -> None:
    with pytest.raises(TimeoutError, match=r"within 0\.05 s"):
        connection.query("SELECT 'old', pg_sleep(0.5); SELECT 'old too'", timeout=0.05)
    assert not connection.closed
    assert works(connection)


def test_time_limit_that_is_too_short_again(database: Database, connect: Connect) -> None:
    database.execute("CREATE TABLE t (a text)")
    with connect(database.dsn()) as connection:
        with pytest.raises(TimeoutError):
            connection.query("INSERT INTO t SELECT 'first' FROM pg_sleep(0.5)", timeout=0.05)
        # Never sent: the first one is still running.
        with pytest.raises(TimeoutError):
            connection.query("INSERT INTO t VALUES ('second')", timeout=0.05)
        connection.query("INSERT INTO t VALUES ('third')")
        assert works(connection)
    assert database.execute("SELECT a FROM t") == [("first",), ("third",)]


def test_time_limit_holds_for_a_server_that_never_pauses(connection: pgrepl.Connection) -> None:
    # It is ahead of the client all the time, so that the client never has to wait for it.
    with pytest.raises(TimeoutError):
        connection.query("SELECT generate_series(1, 200000)", timeout=0.1)
    assert works(connection)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1 / i FROM generate_series(0, 0) i, pg_sleep(0.3)",
        "SELECT pg_sleep(0.3); SELECT no_such_column",
        "COPY (SELECT i, pg_sleep(0.1) FROM generate_series(1, 3) i) TO STDOUT",
    ],
)
def test_fate_of_a_query_that_was_cut_off_does_not_show(
    connection: pgrepl.Connection, sql: str
) -> None:
    with pytest.raises(TimeoutError):
        connection.query(sql, timeout=0.05)
    assert works(connection)


def test_tiny_time_limits_cut_an_answer_anywhere(connection: pgrepl.Connection) -> None:
    for number in range(40):
        expected = [(str(i),) for i in range(number * 50)]
        sql = f"SELECT i FROM generate_series(0, {number * 50 - 1}) i"
        try:
            [result] = connection.query(sql, timeout=number * 5e-5)
        except TimeoutError:
            assert works(connection)
        else:
            assert result.rows == expected


# What comes unasked


def test_notices_are_logged(
    connection: pgrepl.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "pgrepl.notice")
    [done, result] = connection.query(
        "DO $$ BEGIN RAISE WARNING 'mind the %', 'gap'; RAISE NOTICE 'by the way: 100 %%';"
        " RAISE INFO 'for you'; END $$; SELECT 1"
    )
    assert (done.tag, result.rows) == ("DO", [("1",)])
    told = [(r.name, r.levelno, r.getMessage()) for r in caplog.records]
    assert told == [
        ("pgrepl.notice", logging.WARNING, "WARNING 01000: 'mind the gap'"),
        ("pgrepl.notice", logging.INFO, "NOTICE 00000: 'by the way: 100 %'"),
        ("pgrepl.notice", logging.INFO, "INFO 00000: 'for you'"),
    ]


def test_notices_between_rows(
    connection: pgrepl.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgrepl.notice")
    connection.query(
        "CREATE FUNCTION pg_temp.told(i int) RETURNS int LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE NOTICE 'row %', i; RETURN i; END $$"
    )
    [result] = connection.query("SELECT pg_temp.told(i) FROM generate_series(1, 500) i")
    assert result.rows == [(str(i),) for i in range(1, 501)]
    assert [r.getMessage() for r in caplog.records] == [
        f"NOTICE 00000: 'row {i}'" for i in range(1, 501)
    ]


def test_notices_that_nobody_logs(connection: pgrepl.Connection) -> None:
    assert connection.query("DO $$ BEGIN RAISE WARNING 'x'; END $$")[0].tag == "DO"
    assert works(connection)


# Commands of the replication grammar


def test_identify_system(database: Database, connect: Connect) -> None:
    with connect(database.dsn()) as connection:
        [(before,)] = database.execute("SELECT pg_current_wal_flush_lsn()::text")
        identity = connection.identify_system()
        [(after, systemid, timeline)] = database.execute(
            "SELECT pg_current_wal_flush_lsn()::text, system_identifier::text, timeline_id"
            " FROM pg_control_system(), pg_control_checkpoint()"
        )
        assert (identity.systemid, identity.timeline) == (systemid, timeline)
        assert identity.dbname == database.name
        assert pgrepl.Lsn(before) <= identity.xlogpos <= pgrepl.Lsn(after)
        assert isinstance(identity.xlogpos, pgrepl.Lsn)


def test_show(connection: pgrepl.Connection, cluster: Cluster) -> None:
    for name in ("wal_sender_timeout", "TimeZone", "timezone", "data_directory"):
        assert connection.show(name) == cluster.execute(f"SHOW {name}")[0][0]
    assert connection.show("server_version_num") == str(connection.server_version)
    connection.query('SET "some"."thing" = \'of my own\'')
    assert connection.show("some.thing") == "of my own"


@pytest.mark.parametrize("name", ["no_such_setting", "a.b", "x; SELECT 1", "no'such", " "])
def test_show_of_what_is_not_there(connection: pgrepl.Connection, name: str) -> None:
    with pytest.raises(pgrepl.ServerError) as caught:
        connection.show(name)
    assert caught.value.sqlstate in ("42704", "42601", "42602")
    assert not isinstance(caught.value, pgrepl.SlotNotFound)
    assert works(connection)


@pytest.mark.parametrize("name", ["", 'a"b', "a..b", "a\0b"])
def test_show_of_what_cannot_be_said(connection: pgrepl.Connection, name: str) -> None:
    with pytest.raises(pgrepl.UsageError, match="expected a name"):
        connection.show(name)
    assert works(connection)


def test_session_that_ends_in_a_command(cluster: Cluster, connect: Connect) -> None:
    with connect(cluster.dsn()) as connection:
        with pytest.raises(pgrepl.ServerShutdown) as caught:
            connection.query("SELECT 1; SELECT pg_terminate_backend(pg_backend_pid())")
        assert (caught.value.sqlstate, caught.value.severity) == ("57P01", "FATAL")
        assert connection.closed


def test_cancelled_command(connection: pgrepl.Connection, cluster: Cluster) -> None:
    def sleeps() -> bool:
        return bool(
            cluster.execute(
                "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND wait_event = 'PgSleep'",
                [connection.pid],
            )
        )

    with pytest.raises(TimeoutError):
        connection.query("SELECT pg_sleep(1000)", timeout=0.05)
    eventually(sleeps, "the server sleeps")
    cluster.execute("SELECT pg_cancel_backend(%s)", [connection.pid])
    assert works(connection)
