"""``pgrepl stream`` as its users run it: a process of its own, on real servers."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from tests.live.streams import PATIENCE, confirmed, create_slot, eventually, wait_until_free
from tests.support.clusters import PASSWORDS, Cluster, Database

pytest.importorskip("click")

TABLES: Final = """
    CREATE TABLE item (id int PRIMARY KEY, note text, price numeric, body text);
    ALTER TABLE item ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE log (line text);
    ALTER TABLE log REPLICA IDENTITY FULL;
    CREATE TABLE secret (id int);
    CREATE PUBLICATION p FOR TABLE item;
    CREATE PUBLICATION "Odd ""p" FOR TABLE log
"""
CHANGES: Final = r"""
    INSERT INTO item VALUES (1, E'it''s \\ \x1b[2J', 1.50, repeat('x', 3000));
    UPDATE item SET note = NULL WHERE id = 1;
    UPDATE item SET id = 2 WHERE id = 1;
    INSERT INTO log VALUES ('ü');
    DELETE FROM item;
    DELETE FROM log;
    SELECT pg_logical_emit_message(true, 'pre', 'content');
    TRUNCATE item, log RESTART IDENTITY CASCADE
"""


@pytest.fixture
def shop(database: Database) -> Database:
    """A database with two published tables and one that is not."""
    database.execute(TABLES)
    return database


def command(database: Database, *arguments: str, **keywords: str) -> list[str]:
    conninfo = database.dsn(**keywords)
    return [sys.executable, "-m", "pgrepl", "stream", conninfo, "-P", "p", *arguments]


def run(database: Database, *arguments: str, **keywords: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(database, *arguments, **keywords),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )


def lines(database: Database, *arguments: str) -> list[str]:
    """What a run prints that must succeed."""
    ended = run(database, *arguments)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.splitlines()


@contextlib.contextmanager
def running(
    database: Database, *arguments: str, **keywords: str
) -> Iterator[subprocess.Popen[str]]:
    """A process whose output the test reads; it is killed if the test leaves it running."""
    process = subprocess.Popen(
        command(database, *arguments, **keywords),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def read_until(process: subprocess.Popen[str], word: str) -> list[str]:
    """The lines up to one that begins with a word."""
    assert process.stdout is not None
    read: list[str] = []
    while not (read and read[-1].startswith(word)):
        line = process.stdout.readline()
        assert line, f"the output ended before {word}: {read[-3:]}"
        read.append(line.rstrip("\n"))
    return read


def end(process: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal and return the exit status, the rest of the output, and what was complained."""
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


def last_commit(database: Database, slot: str) -> str:
    """The end of the last transaction that a slot has for the publication, by SQL."""
    [(position,)] = database.execute(
        "SELECT max(lsn)::text FROM pg_logical_slot_peek_binary_changes(%s, NULL, NULL,"
        " 'proto_version', '1', 'publication_names', 'p')",
        [slot],
    )
    return str(position)


def slots(database: Database, condition: str = "true") -> list[str]:
    """The names of the database's slots, of those that an SQL condition holds for."""
    found = database.execute(
        f"SELECT slot_name FROM pg_replication_slots WHERE database = %s AND {condition}",
        [database.name],
    )
    return [name for (name,) in found]


def insert(database: Database, first: int, last: int) -> None:
    """One transaction with rows of a few hundred bytes."""
    database.execute(
        "INSERT INTO item SELECT n, repeat('x', 300) FROM generate_series(%s::int, %s) AS n",
        [first, last],
    )


# What is printed


def test_text(shop: Database) -> None:
    slot = create_slot(shop)
    shop.execute(CHANGES)
    until = last_commit(shop, slot)
    (start, *told, finish) = lines(shop, "--slot", slot, "-P", 'Odd "p', "--end-pos", until)
    [xid] = re.findall(
        r"BEGIN (\d+) at [0-9A-F]+/[0-9A-F]+ 2\d{3}-\d\d-\d\dT[\d:]{8}\.\d{6}Z", start
    )
    assert finish == f"COMMIT {xid} {until}"
    message = [line for line in told if line.startswith("MESSAGE")]
    assert [line for line in told if line not in message] == [
        rf"INSERT public.item id=1 note='it''s \\ \x1b[2J' price=1.50 body='{'x' * 3000}'",
        "UPDATE public.item id=1 note=NULL price=1.50 body=UNCHANGED",
        "UPDATE public.item key(id=1) id=2 note=NULL price=1.50 body=UNCHANGED",
        "INSERT public.log line='ü'",
        "DELETE public.item key(id=2)",
        "DELETE public.log old(line='ü')",
        "TRUNCATE public.item, public.log RESTART IDENTITY CASCADE",
    ]
    if shop.cluster.major < 14:
        assert message == []
    else:
        [line] = message
        assert re.fullmatch(r"MESSAGE at [0-9A-F]+/[0-9A-F]+ 'pre' 'content'", line)


def test_json(shop: Database) -> None:
    slot = create_slot(shop)
    shop.execute(CHANGES)
    until = last_commit(shop, slot)
    told = [
        json.loads(line)
        for line in lines(
            shop, "--slot", slot, "-P", 'Odd "p', "--end-pos", until, "--format", "json"
        )
    ]
    changes: list[dict[str, Any]] = [each for each in told if each["kind"] != "relation"]
    assert {each["table"] for each in told if each["kind"] == "relation"} == {"item", "log"}
    kinds = [each["kind"] for each in changes if each["kind"] != "message"]
    assert kinds == [
        *("begin", "insert", "update", "update", "insert", "delete", "delete", "truncate", "commit")
    ]
    assert len({each["xid"] for each in changes}) == 1
    row = {"id": "1", "note": "it's \\ \x1b[2J", "price": "1.50", "body": "x" * 3000}
    assert changes[1]["new"] == row
    assert changes[2]["new"] == {"id": "1", "note": None, "price": "1.50"}
    assert changes[2]["unchanged"] == ["body"]
    assert changes[3]["key"] == {"id": "1"}
    assert changes[-1]["end_lsn"] == until


# How far


def test_until_ends_there_and_a_restart_repeats_nothing(shop: Database) -> None:
    slot = create_slot(shop)
    insert(shop, 1, 1)
    first = last_commit(shop, slot)
    insert(shop, 2, 2)
    second = last_commit(shop, slot)
    assert lines(shop, "--slot", slot, "--end-pos", first)[-1].endswith(f" {first}")
    assert confirmed(shop, slot) == pgrepl.Lsn(first)
    (_, row, finish) = lines(shop, "--slot", slot, "--end-pos", second)
    assert "id=2" in row
    assert finish.endswith(f" {second}")
    assert confirmed(shop, slot) == pgrepl.Lsn(second)


def test_until_is_reached_without_a_commit(shop: Database) -> None:
    slot = create_slot(shop)
    shop.execute("INSERT INTO secret VALUES (1)")
    [(until,)] = shop.execute("SELECT pg_current_wal_flush_lsn()::text")
    told = lines(shop, "--slot", slot, "--end-pos", until)
    # Before version 15 a transaction with nothing in it shows as such.
    assert {line.split()[0] for line in told} <= {"BEGIN", "COMMIT"}
    assert confirmed(shop, slot) >= pgrepl.Lsn(until)


def test_an_idle_slot_follows_the_server(shop: Database) -> None:
    slot = create_slot(shop)
    with running(shop, "--slot", slot, "--status-interval", "0.1") as process:
        insert(shop, 1, 1)
        read_until(process, "COMMIT")
        shop.execute("INSERT INTO secret SELECT generate_series(1, 1000)")
        [(position,)] = shop.execute("SELECT pg_current_wal_flush_lsn() - '0/0'")
        eventually(lambda: confirmed(shop, slot) >= position, "the idle slot has caught up")
        assert end(process, signal.SIGTERM) == (0, "", "")


# The slot


def test_create_slot(shop: Database) -> None:
    slot = shop.slot("new")
    with running(shop, "--slot", slot, "--create-slot") as process:
        eventually(lambda: slots(shop, "active"), "it streams")
        insert(shop, 1, 1)
        read_until(process, "COMMIT")
        assert end(process, signal.SIGINT) == (0, "", "")
    wait_until_free(shop, slot)
    again = run(shop, "--slot", slot, "--create-slot")
    assert (again.returncode, again.stdout) == (1, "")
    assert re.fullmatch(
        rf'pgrepl: ERROR 42710: [^\n]*"{slot}"[^\n]*; leave out --create-slot [^\n]*\n',
        again.stderr,
    )
    assert shop.execute("SELECT temporary FROM pg_replication_slots") == [(False,)]


def test_temporary_slot(shop: Database) -> None:
    with running(shop, "--slot", shop.slot(), "--temporary") as process:
        eventually(lambda: slots(shop, "temporary AND active"), "it streams")
        insert(shop, 1, 1)
        read_until(process, "COMMIT")
        assert end(process, signal.SIGINT) == (0, "", "")
    eventually(lambda: not slots(shop), "the slot is gone")


# Errors


def one_line(ended: subprocess.CompletedProcess[str]) -> str:
    """The complaint of a run that failed."""
    assert (ended.returncode, ended.stdout) == (1, "")
    assert re.fullmatch(r"pgrepl: [^\n]+\n", ended.stderr)
    return ended.stderr


def test_no_such_slot(shop: Database) -> None:
    complaint = one_line(run(shop, "--slot", "nowhere"))
    assert "42704" in complaint
    assert "--create-slot makes it" in complaint


def test_no_such_publication_leaves_no_slot(shop: Database) -> None:
    complaint = one_line(run(shop, "--slot", shop.slot(), "--create-slot", "-P", "q"))
    assert "expected the publication 'q'" in complaint
    assert slots(shop) == []


def test_a_slot_in_use(shop: Database) -> None:
    slot = create_slot(shop)
    with running(shop, "--slot", slot) as process:
        eventually(lambda: slots(shop, "active"), "it streams")
        assert "55006" in one_line(run(shop, "--slot", slot, "--no-loop"))
        assert end(process, signal.SIGINT)[0] == 0


def test_a_wrong_password_is_not_repeated(own_cluster: Cluster, shop: Database) -> None:
    assert own_cluster is shop.cluster
    complaint = one_line(run(shop, "--slot", "s", user="u_scram", password="wrong, and secret"))
    assert "28P01" in complaint
    assert "secret" not in complaint
    assert PASSWORDS["u_scram"] not in complaint


def test_the_server_shuts_down(own_cluster: Cluster, shop: Database) -> None:
    slot = create_slot(shop)
    with running(shop, "--slot", slot, "--no-loop") as process:
        insert(shop, 1, 1)
        finish = read_until(process, "COMMIT")[-1]
        server = own_cluster.own
        try:
            # Fast, and with nothing harder to follow: the server waits until it was answered.
            os.kill(server.pid, signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            server.restart()
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(r"pgrepl: FATAL 57P01: [^\n]+\n", err)
    if own_cluster.major >= 17:  # earlier ones may forget where a slot stood
        assert confirmed(shop, slot) >= pgrepl.Lsn(finish.split()[-1])


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_stream_in_order(shop: Database, number: int) -> None:
    slot = create_slot(shop)
    # So that nothing but the last report can tell the server.
    with running(shop, "--slot", slot, "--status-interval", "1000") as process:
        insert(shop, 1, 1)
        insert(shop, 2, 2)
        read_until(process, "COMMIT")
        finish = read_until(process, "COMMIT")[-1]
        assert end(process, number) == (0, "", "")
    assert confirmed(shop, slot) >= pgrepl.Lsn(finish.split()[-1])
    wait_until_free(shop, slot)
    insert(shop, 3, 3)
    (_, row, _) = lines(shop, "--slot", slot, "--end-pos", last_commit(shop, slot))
    assert "id=3" in row


def test_a_signal_inside_of_a_large_transaction(shop: Database) -> None:
    slot = create_slot(shop)
    insert(shop, 1, 1)
    before = last_commit(shop, slot)
    insert(shop, 2, 40000)
    with running(shop, "--slot", slot) as process:
        read_until(process, "COMMIT")
        read_until(process, "INSERT")
        status, out, err = end(process, signal.SIGINT)
    assert (status, err) == (0, "")
    assert "COMMIT" not in out
    assert confirmed(shop, slot) == pgrepl.Lsn(before)
    wait_until_free(shop, slot)
    told = lines(shop, "--slot", slot, "--end-pos", last_commit(shop, slot))
    assert [line.split()[0] for line in told] == ["BEGIN", *["INSERT"] * 39999, "COMMIT"]


def test_a_signal_while_connecting() -> None:
    """A host that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        conninfo = f"host=127.0.0.1 port={silent.getsockname()[1]}"
        process = subprocess.Popen(
            [sys.executable, "-m", "pgrepl", "stream", conninfo, "-P", "p", "--slot", "s"],
            stderr=subprocess.PIPE,
            text=True,
        )
        with process:
            silent.settimeout(PATIENCE)
            connection, _ = silent.accept()
            with connection:
                connection.recv(1)
                assert end(process, signal.SIGTERM)[0] == 143


# The reader of the output


def test_a_reader_that_has_had_enough(shop: Database) -> None:
    slot = create_slot(shop)
    insert(shop, 1, 5000)
    with running(shop, "--slot", slot) as process:
        read_until(process, "INSERT")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == ""
    wait_until_free(shop, slot)
    told = lines(shop, "--slot", slot, "--end-pos", last_commit(shop, slot))
    assert [line.split()[0] for line in told] == ["BEGIN", *["INSERT"] * 5000, "COMMIT"]


def test_a_reader_that_leaves_while_nothing_happens(shop: Database) -> None:
    slot = create_slot(shop)
    with running(shop, "--slot", slot) as process:
        insert(shop, 1, 1)
        read_until(process, "COMMIT")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141


def test_a_reader_that_sleeps_keeps_its_connection(shop: Database) -> None:
    slot = create_slot(shop)
    for number in range(4):
        insert(shop, number * 1000, number * 1000 + 999)
    until = last_commit(shop, slot)
    options = "-c wal_sender_timeout=1000"
    with running(shop, "--slot", slot, "--end-pos", until, options=options) as process:
        read_until(process, "BEGIN")
        time.sleep(3)  # three times what the server allows
        assert confirmed(shop, slot) < pgrepl.Lsn(until)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert out.count("\nCOMMIT ") == 4
    assert confirmed(shop, slot) == pgrepl.Lsn(until)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which is Linux's")
def test_an_output_that_fails(shop: Database) -> None:
    slot = create_slot(shop)
    insert(shop, 1, 1)
    position = confirmed(shop, slot)
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command(shop, "--slot", slot),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr == "pgrepl: the output cannot be written: No space left on device\n"
    assert confirmed(shop, slot) == position
