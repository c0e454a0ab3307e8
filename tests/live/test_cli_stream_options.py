"""``pgrepl stream``: whose changes it leaves out, and what becomes of one that does not begin."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.live.program import PROGRAM, complaint, running
from tests.live.streams import create_slot, eventually
from tests.live.test_cli_recvlogical import position, shop, stream
from tests.support.clusters import Database

__all__ = ["shop"]

pytest.importorskip("click")


def insert_as_from_elsewhere(database: Database, row: int) -> None:
    with database.connect() as session:
        for statement in (
            "SELECT pg_replication_origin_create(%s)",
            "SELECT pg_replication_origin_session_setup(%s)",
        ):
            session.execute(statement, [database.name])
        with session.transaction():
            session.execute("INSERT INTO item VALUES (%s)", [row])
        session.execute("SELECT pg_replication_origin_session_reset()")
        session.execute("SELECT pg_replication_origin_drop(%s)", [database.name])


@pytest.mark.parametrize("form", ["text", "json", "raw"])
@pytest.mark.parametrize("origin", ["any", "none"])
def test_what_came_from_elsewhere(shop: Database, form: str, origin: str) -> None:
    slot = create_slot(shop)
    shop.execute("INSERT INTO item VALUES (101)")
    insert_as_from_elsewhere(shop, 102)
    shop.execute("INSERT INTO item VALUES (103)")
    words = stream(shop, slot, "-P", "p", "--format", form, "--origin", origin, "-n")
    if shop.cluster.major < 16 and origin == "none":
        assert "needs PostgreSQL 16 or later" in complaint(*words)
        return
    # Bytes of which each is a character, since pgoutput writes no text.
    ended = subprocess.run(
        [*PROGRAM, *words, "-E", position(shop)], capture_output=True, check=True
    )
    told = ended.stdout.decode("latin-1")
    expected = ["101", "102", "103"] if origin == "any" else ["101", "103"]
    # Not in a time, nor in a position.
    assert re.findall(r"(?<![\w/.])10[123](?!\d)", told) == expected


@pytest.mark.parametrize("form", ["text", "raw"])
def test_a_slot_in_use_at_the_first_start(shop: Database, form: str) -> None:
    """It is not tried again and again; whoever wants that has a loop of his own."""
    slot = create_slot(shop)
    words = stream(shop, slot, "-P", "p", "--format", form)
    with running(*words):
        eventually(
            lambda: shop.execute("SELECT 1 FROM pg_replication_slots WHERE active"), "it streams"
        )
        said = complaint(*words)
        assert re.search(r"55006: .*is active for PID \d+", said)


def test_a_publication_that_is_gone(shop: Database) -> None:
    slot = create_slot(shop)
    shop.execute("INSERT INTO item VALUES (101)")
    end = position(shop)
    words = stream(shop, slot, "-P", "p", "-P", "gone", "-n", "-E", end)
    said = complaint(*words)
    assert 'found none of the name "gone"' in said
    assert "--on-missing-publication warn lets that come" in said
    if shop.cluster.major < 18:
        return  # which ends the stream at the first change, whoever wants to go on
    ended = subprocess.run(
        [*PROGRAM, *words, "--on-missing-publication", "warn"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "101" in ended.stdout
    assert '"gone"' in ended.stderr
    notice = 'pgrepl: WARNING 55000: skipped loading publication "gone"\n        DETAIL: The '
    assert notice in ended.stderr


def test_advice_names_options(shop: Database) -> None:
    decoding = create_slot(shop, "decoding", plugin="test_decoding")
    said = complaint(*stream(shop, decoding, "-P", "p"))
    assert said.endswith("read what that plugin writes with --plugin test_decoding\n")
    slot = create_slot(shop)
    said = complaint(*stream(shop, slot, "-P", "p", "--temporary"))
    assert said.endswith("; give --temporary a slot of another name, or leave it out\n")
    shop.execute("INSERT INTO item VALUES (101)")
    begun = subprocess.run(
        [*PROGRAM, *stream(shop, slot, "-P", "p", "-I", "0/1", "-E", "0/1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert begun.stderr.endswith("or created again, looks the same\n")
