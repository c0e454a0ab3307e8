"""``pgrepl stream`` beside pg_recvlogical: the same bytes, the same ends, and no less care."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from tests.live.program import PROGRAM, complaint, output, run, running
from tests.live.streams import PATIENCE, confirmed, create_slot, eventually, wait_until_free
from tests.support.clusters import Cluster, Database

pytest.importorskip("click")

PLUGINS: Final = ("test_decoding", "pgoutput")
OPTIONS: Final = {
    "test_decoding": ("-o", "include-xids=0", "-o", "skip-empty-xacts"),
    "pgoutput": ("-o", "proto_version=1", "-o", "publication_names=p"),
}
TABLES: Final = """
    CREATE TABLE item (id int PRIMARY KEY, note text, raw bytea);
    CREATE PUBLICATION p FOR ALL TABLES
"""


@pytest.fixture
def shop(own_cluster: Cluster, database: Database) -> Database:
    """A database with a published table, on a server of our own."""
    assert own_cluster is database.cluster
    database.execute(TABLES)
    return database


def stream(database: Database, slot: str, *words: str) -> tuple[str, ...]:
    return ("stream", database.dsn(), "--slot", slot, *words)


def position(database: Database) -> str:
    """The end of the WAL."""
    [(end,)] = database.execute("SELECT pg_current_wal_flush_lsn()::text")
    return str(end)


def insert(database: Database, first: int, last: int, size: int = 100) -> None:
    """One transaction."""
    database.execute(
        "INSERT INTO item SELECT n, repeat('x', %s) FROM generate_series(%s::int, %s) AS n",
        [size, first, last],
    )


def copied(database: Database, slot: str, stem: str) -> str:
    """Make a slot that begins where another one does."""
    name = database.slot(stem)
    database.execute("SELECT pg_copy_logical_replication_slot(%s, %s)", [slot, name])
    return name


def recvlogical(database: Database, slot: str, *words: str) -> bytes:
    """What pg_recvlogical writes, up to an end."""
    program = database.cluster.own.bin_directory / "pg_recvlogical"
    ended = subprocess.run(
        [program, "-d", database.dsn(), "-S", slot, "--start", "-n", "-f", "-", *words],
        capture_output=True,
        timeout=PATIENCE * 2,
        check=True,
    )
    return ended.stdout


def ours(database: Database, slot: str, *words: str) -> bytes:
    """What this program writes, up to an end."""
    ended = subprocess.run(
        [*PROGRAM, *stream(database, slot, "--format", "raw", "-n", *words)],
        capture_output=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout


def numbers(text: str) -> list[int]:
    """The keys of the rows that lines of text tell of."""
    return [int(number) for number in re.findall(r"^INSERT public\.item id=(\d+) ", text, re.M)]


# The same as pg_recvlogical


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_same_bytes(shop: Database, plugin: str) -> None:
    first = create_slot(shop, "theirs", plugin=plugin)
    second = copied(shop, first, "ours")
    insert(shop, 1, 2000, 300)
    with shop.connect() as one, shop.connect() as other, one.transaction():
        one.execute(r"INSERT INTO item VALUES (3001, E'a\nb\n\n', '\x000a0d')")
        other.execute("INSERT INTO item VALUES (3002, 'ü' || repeat('y', 30000))")
        one.execute("UPDATE item SET note = note || '.' WHERE id <= 50")
    shop.execute("DELETE FROM item WHERE id % 7 = 0; TRUNCATE item")
    end = position(shop)
    words = (*OPTIONS[plugin], "-E", end)
    expected = recvlogical(shop, first, *words)
    assert len(expected) > 500_000
    assert ours(shop, second, *words) == expected
    assert confirmed(shop, second) >= pgrepl.Lsn(end)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_the_same_ends(shop: Database, plugin: str) -> None:
    """At a change, just before and behind one, at a commit, and in between transactions; and each
    time both go on with the same."""
    probe = create_slot(shop, "probe", plugin=plugin)
    first, second = copied(shop, probe, "theirs"), copied(shop, probe, "ours")
    for number in range(3):
        insert(shop, 10 * number, 10 * number + 5)
    options = [text for pair in OPTIONS[plugin][1::2] for text in f"{pair}=1".split("=")[:2]]
    found = shop.execute(
        "SELECT lsn - '0/0' FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL, "
        f"VARIADIC ARRAY[{', '.join(['%s'] * len(options))}])",
        [probe, *options],
    )
    lsns = sorted({int(lsn) for (lsn,) in found if lsn})
    middle = len(lsns) // 2
    for end in (lsns[0] - 1, lsns[1], lsns[middle] - 1, lsns[middle], lsns[middle] + 1, lsns[-1]):
        words = (*OPTIONS[plugin], "-E", str(pgrepl.Lsn(end)))
        assert ours(shop, second, *words) == recvlogical(shop, first, *words)


def test_an_end_in_the_middle_of_a_transaction_confirms_nothing_of_it(shop: Database) -> None:
    slot = create_slot(shop)
    before = confirmed(shop, slot)
    insert(shop, 1, 9)
    [(middle,)] = shop.execute(
        "SELECT lsn::text FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'p') OFFSET 5 LIMIT 1",
        [slot],
    )
    told = output(*stream(shop, slot, "-P", "p", "--end-pos", middle))
    assert 0 < len(numbers(told)) < 9
    assert "COMMIT" not in told
    assert confirmed(shop, slot) == before
    again = output(*stream(shop, slot, "-P", "p", "--end-pos", position(shop)))
    assert numbers(again) == list(range(1, 10))


def test_a_start_is_where_it_begins(shop: Database) -> None:
    slot = create_slot(shop)
    insert(shop, 1, 1)
    start = position(shop)
    insert(shop, 2, 2)
    words = ("-P", "p", "-E", position(shop))
    assert numbers(output(*stream(shop, slot, *words, "-I", start))) == [2]
    # Where the slot has come further, it says so.
    status, out, err = run(*stream(shop, slot, *words, "-I", "0/1"))
    assert (status, out) == (0, "")
    assert re.fullmatch(r"pgrepl: [^\n]* 0/1[^\n]*\n", err)


# Slots


def slot_rows(database: Database, columns: str) -> list[tuple[Any, ...]]:
    return database.execute(
        f"SELECT {columns} FROM pg_replication_slots WHERE database = %s", [database.name]
    )


def test_slots_are_made_and_dropped(shop: Database) -> None:
    slot = shop.slot("new")
    made = stream(shop, slot, "--plugin", "test_decoding", "--create-slot", "-E", "0/1")
    assert output(*made) == ""
    assert slot_rows(shop, "slot_name, plugin") == [(slot, "test_decoding")]
    assert "leave out --create-slot" in complaint(*made)
    assert output(*made, "--if-not-exists") == ""
    dropped = stream(shop, slot, "--drop-slot")
    assert output(*dropped) == ""
    assert slot_rows(shop, "slot_name") == []
    assert "42704" in complaint(*dropped)


def test_a_slot_that_is_not_there(shop: Database) -> None:
    for words in (("-P", "p"), ("--format", "raw")):
        assert "--create-slot makes it" in complaint(*stream(shop, "nowhere", *words))


def test_a_slot_of_another_plugin(shop: Database) -> None:
    slot = create_slot(shop, plugin="test_decoding")
    assert "is of plugin 'test_decoding'" in complaint(*stream(shop, slot, "-P", "p"))


def test_prepared_transactions(shop: Database) -> None:
    if shop.cluster.major < 15:
        pytest.skip("slots for prepared transactions are made from PostgreSQL 15 on")
    [(possible,)] = shop.execute("SELECT current_setting('max_prepared_transactions')::int")
    if not possible:
        pytest.skip("this server has max_prepared_transactions = 0")
    raw, text = shop.slot("raw"), shop.slot("text")
    made = ("--create-slot", "--two-phase", "-E", "0/1")
    assert output(*stream(shop, raw, "--plugin", "test_decoding", *made)) == ""
    assert output(*stream(shop, text, "-P", "p", *made)) == ""
    assert slot_rows(shop, "two_phase") == [(True,), (True,)]
    shop.execute("BEGIN; INSERT INTO item VALUES (1); PREPARE TRANSACTION 'it''s'")
    prepared = position(shop)
    shop.execute("COMMIT PREPARED 'it''s'")
    told = output(*stream(shop, raw, "--format", "raw", "-E", prepared))
    assert "PREPARE TRANSACTION 'it''s'" in told
    assert "COMMIT" not in told
    told = output(*stream(shop, text, "-P", "p", "--two-phase", "-E", position(shop)))
    assert [" ".join(line.split()[:2]) for line in told.splitlines()] == [
        "BEGIN PREPARE",
        "INSERT public.item",
        told.splitlines()[2].rsplit(" ", 2)[0],
        "COMMIT PREPARED",
    ]


def test_large_transactions_in_blocks(shop: Database) -> None:
    if shop.cluster.major < 14:
        pytest.skip("transactions are streamed from PostgreSQL 14 on")
    slot = create_slot(shop)
    insert(shop, 1, 2000)
    conninfo = shop.dsn(options="-c logical_decoding_work_mem=64kB")
    end = ("-P", "p", "--slot", slot, "--streaming", "on", "-E", position(shop))
    told = output("stream", conninfo, *end).splitlines()
    assert re.fullmatch(r"STREAM START (\d+) first", told[0])
    xid = told[0].split()[2]
    assert told[-1].startswith(f"STREAM COMMIT {xid} ")
    rows = [line for line in told if line.startswith("INSERT")]
    assert numbers("\n".join(rows)) == list(range(1, 2001))
    assert all(line.endswith(f" [{xid}]") for line in rows)


# A file


def test_a_file_is_appended_to_and_opened_anew(shop: Database, tmp_path: Path) -> None:
    slot = create_slot(shop)
    path, moved = tmp_path / "out", tmp_path / "out.1"
    path.write_text("there before\n")
    with running(*stream(shop, slot, "-P", "p", "-f", str(path))) as process:
        insert(shop, 1, 3)
        eventually(lambda: "COMMIT" in path.read_text(), "the first transaction is written")
        path.rename(moved)
        process.send_signal(signal.SIGHUP)
        eventually(path.exists, "the file is there again")
        # What was in the old one is safe, and may be told.
        end = pgrepl.Lsn(moved.read_text().split()[-1])
        eventually(lambda: confirmed(shop, slot) >= end, "the old file was synced")
        insert(shop, 4, 5)
        eventually(lambda: "COMMIT" in path.read_text(), "the second transaction is written")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 0
    old = moved.read_text()
    assert old.startswith("there before\nBEGIN")
    assert (numbers(old), numbers(path.read_text())) == ([1, 2, 3], [4, 5])


def test_written_is_not_flushed(shop: Database, tmp_path: Path) -> None:
    slot, path = create_slot(shop), tmp_path / "out"
    before = confirmed(shop, slot)
    words = ("-P", "p", "-f", str(path), "--fsync-interval", "3600", "--status-interval", "0.1")
    with running(*stream(shop, slot, *words)) as process:
        insert(shop, 1, 3)
        eventually(lambda: path.exists() and "COMMIT" in path.read_text(), "it is written")
        end = pgrepl.Lsn(path.read_text().split()[-1])
        eventually(
            lambda: shop.execute(
                "SELECT 1 FROM pg_stat_replication JOIN pg_replication_slots ON pid = active_pid"
                " WHERE slot_name = %s AND write_lsn >= %s::pg_lsn"
                " AND coalesce(flush_lsn, '0/0') < %s::pg_lsn",
                [slot, str(end), str(end)],
            ),
            "it is reported as written and not as flushed",
        )
        assert confirmed(shop, slot) == before
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == 0
    assert confirmed(shop, slot) >= end


def test_a_full_disk(shop: Database, tmp_path: Path) -> None:
    """By the limit on a file's size, which ends a write in its middle as a full disk does."""
    slot, path = create_slot(shop), tmp_path / "out"
    for number in range(40):
        insert(shop, 100 * number, 100 * number + 99)
    words = stream(shop, slot, "-P", "p", "-f", str(path), "-E", position(shop))

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    ended = subprocess.run(
        [*PROGRAM, *words],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        preexec_fn=limit,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(
        r"pgrepl: the output \S+ cannot be written: File too large; nothing is [^\n]+\n",
        ended.stderr,
    )
    told = path.read_text()
    assert 50_000 < len(told) < 100_000
    # No line was cut off, and what is confirmed is there.
    assert told.endswith("\n")
    commits = [pgrepl.Lsn(line.split()[-1]) for line in told.splitlines() if "COMMIT" in line]
    assert confirmed(shop, slot) in [0, *commits]
    assert confirmed(shop, slot) == commits[-1]
    wait_until_free(shop, slot)
    assert output(*words) == ""
    whole = numbers(path.read_text())
    assert sorted(set(whole)) == list(range(4000))
    # The transaction that was cut off, and that one alone, comes again.
    assert len(whole) - 4000 < 100


@pytest.mark.parametrize("below", ["missing/out", "."])
def test_an_output_that_cannot_be_opened(shop: Database, tmp_path: Path, below: str) -> None:
    words = stream(shop, shop.slot(), "-P", "p", "--create-slot", "-f", str(tmp_path / below))
    assert "cannot be written" in complaint(*words)
    assert slot_rows(shop, "slot_name") == []


# Connections that are lost


@contextlib.contextmanager
def streaming_to(
    database: Database, slot: str, path: Path, *words: str
) -> Iterator[subprocess.Popen[str]]:
    """A run that writes into a file, and complains of nothing but the loss of its connections."""
    with running(*stream(database, slot, "-f", str(path), *words)) as process:
        try:
            yield process
        except BaseException:
            process.kill()
            print(process.communicate()[1])  # why it did not do what was waited for
            raise
        process.send_signal(signal.SIGTERM)
        told, complaints = process.communicate(timeout=PATIENCE)
        assert (process.returncode, told) == (0, "")
        assert all(
            re.fullmatch(r"pgrepl: .+; connecting again in [\d.]+ s", line)
            for line in complaints.splitlines()
        )


def terminate(database: Database, slot: str) -> bool:
    """End the server process that serves a slot; whether there was one."""
    return bool(
        database.execute(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            [slot],
        )
    )


@pytest.mark.parametrize("words", [("-P", "p"), ("--format", "raw")], ids=["text", "raw"])
def test_a_new_connection_repeats_nothing(
    shop: Database, tmp_path: Path, words: tuple[str, ...]
) -> None:
    raw = "raw" in words
    slot = create_slot(shop, plugin="test_decoding" if raw else "pgoutput")
    path = tmp_path / "out"
    row = r"^table public\.item: INSERT: id\[integer\]:(\d+) " if raw else r"^INSERT \S+ id=(\d+) "

    def rows() -> list[int]:
        text = path.read_text() if path.exists() else ""
        return [int(number) for number in re.findall(row, text, re.M)]

    with streaming_to(shop, slot, path, *words, "--fsync-interval", "3600"):
        for number in (0, 10, 20):
            insert(shop, number, number + 9)
            eventually(lambda: number + 9 in rows(), "it is written")  # noqa: B023 - called at once
            assert terminate(shop, slot)
        insert(shop, 30, 39)
        eventually(lambda: len(rows()) >= 40, "the rest is written")
    assert rows() == list(range(40))


def test_a_transaction_that_was_cut_off_is_told_once(shop: Database, tmp_path: Path) -> None:
    slot, path = create_slot(shop), tmp_path / "out"
    insert(shop, 1, 60000, 200)
    with streaming_to(shop, slot, path, "-P", "p"):
        for size in (1, 5_000_000):
            eventually(
                lambda: path.exists() and path.stat().st_size > size,  # noqa: B023 - called at once
                "it has begun",
            )
            assert terminate(shop, slot)
        eventually(lambda: "COMMIT" in path.read_text(), "it has ended")
    told = path.read_text()
    assert numbers(told) == list(range(1, 60001))
    assert (told.count("BEGIN"), told.count("COMMIT")) == (1, 1)


def test_a_server_that_restarts(own_cluster: Cluster, shop: Database, tmp_path: Path) -> None:
    slot, path = create_slot(shop), tmp_path / "out"
    with streaming_to(shop, slot, path, "-P", "p"):
        insert(shop, 1, 1)
        eventually(lambda: path.exists() and "COMMIT" in path.read_text(), "it is written")
        own_cluster.own.restart()
        insert(shop, 2, 2)
        eventually(lambda: path.read_text().count("COMMIT") == 2, "the rest is written")
    assert numbers(path.read_text()) == [1, 2]


def test_a_signal_while_the_server_is_away(own_cluster: Cluster, shop: Database) -> None:
    slot = create_slot(shop)
    server = own_cluster.own
    with running(*stream(shop, slot, "-P", "p")) as process:
        eventually(lambda: slot_rows(shop, "active") == [(True,)], "it streams")
        try:
            os.kill(server.pid, signal.SIGINT)
            assert process.stderr is not None
            assert "connecting again in" in process.stderr.readline()
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            server.restart()


def test_a_publication_that_is_missing(shop: Database) -> None:
    slot = create_slot(shop)
    said = complaint(*stream(shop, slot, "-P", "p", "-P", "nowhere"))
    assert 'found none of the name "nowhere"' in said
    assert "connecting again" not in said


def test_verbose(shop: Database) -> None:
    slot = create_slot(shop)
    words = stream(shop, slot, "-P", "p", "-v", "-E", "0/1")
    ended = subprocess.run(
        [*PROGRAM, *words], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert re.fullmatch(
        rf"pgrepl: streaming from slot {slot} of system \d+ at [0-9A-F]+/[0-9A-F]+\n", ended.stderr
    )
