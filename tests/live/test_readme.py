"""The README's first program, as somebody copies it: it runs, ends by Ctrl-C, and runs again."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.live.streams import PATIENCE, eventually, wait_until_free
from tests.support.clusters import Database

README: Final = Path(__file__).parents[2] / "README.md"
CONNINFO: Final = "postgresql://postgres@localhost/shop"
SLOT: Final = '"changes"'
PUBLICATION: Final = "CREATE PUBLICATION shop FOR ALL TABLES"


@pytest.fixture(scope="module")
def program() -> str:
    """The README's first block of Python that is a whole program."""
    text = README.read_text()
    assert PUBLICATION in text
    found = re.search(r"```python\n(import signal\n.*?)```", text, re.DOTALL)
    assert found is not None
    assert found[1].count(CONNINFO) == 1
    assert found[1].count(SLOT) == 2
    return found[1]


def test_a_type_checker_accepts_it(program: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "program.py"
    path.write_text(program)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        capture_output=True,
        text=True,
        cwd=README.parent,
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_it_runs_ends_by_ctrl_c_and_runs_again(
    program: str, database: Database, tmp_path: Path
) -> None:
    database.execute(f"CREATE TABLE item (id int PRIMARY KEY, note text); {PUBLICATION}")
    slot = database.slot("changes")
    path = tmp_path / "program.py"
    path.write_text(
        program.replace(f'"{CONNINFO}"', repr(database.dsn())).replace(SLOT, repr(slot))
    )

    def run(statements: str) -> list[str]:
        """The lines that it prints of these statements."""
        running = subprocess.Popen(
            [sys.executable, "-u", str(path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            eventually(
                lambda: bool(
                    running.poll() is not None
                    or database.execute(
                        # A slot is active while it is made, too, which may end behind what follows.
                        "SELECT 1 FROM pg_replication_slots JOIN pg_stat_replication"
                        " ON active_pid = pid WHERE slot_name = %s AND state = 'streaming'",
                        [slot],
                    )
                ),
                "it streams",
            )
            lsn = database.execute(f"{statements}; SELECT pg_current_wal_lsn()")[0][0]
            eventually(
                lambda: bool(
                    running.poll() is not None
                    or database.execute(
                        "SELECT 1 FROM pg_replication_slots"
                        " WHERE slot_name = %s AND confirmed_flush_lsn >= %s",
                        [slot, lsn],
                    )
                ),
                "what it printed is acknowledged",
            )
            os.kill(running.pid, signal.SIGINT)
            said, _ = running.communicate(timeout=PATIENCE)
        finally:
            running.kill()
            running.communicate()
        assert running.returncode == 0, said
        wait_until_free(database, slot)
        return said.splitlines()

    assert run("INSERT INTO item VALUES (1, 'a')") == [
        "public.item {'id': 1, 'note': 'a'}",
    ]
    assert run("UPDATE item SET note = 'b'; DELETE FROM item") == [
        "public.item changed to {'id': 1, 'note': 'b'}",
        "public.item {'id': 1} is gone",
    ]
