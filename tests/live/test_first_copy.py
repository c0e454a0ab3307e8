"""The program of docs/streams.md that copies what is there and streams what follows."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.support.clusters import Database

PAGE: Final = Path(__file__).parents[2] / "docs" / "streams.md"
CONNINFO: Final = "postgresql://postgres@localhost/shop"


@pytest.fixture(scope="module")
def program() -> str:
    _, _, section = PAGE.read_text().partition("## The rows that are there already\n")
    found = re.search(r"```python\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_a_type_checker_accepts_it(program: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    path = tmp_path / "program.py"
    path.write_text(program)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(path)],
        capture_output=True,
        text=True,
        cwd=PAGE.parents[1],
    )
    assert (checked.returncode, checked.stdout) == (0, "")


def test_nothing_is_missed_and_nothing_comes_twice(program: str, database: Database) -> None:
    database.execute(
        "CREATE TABLE item (id int PRIMARY KEY, note text);"
        "INSERT INTO item VALUES (1, 'one'), (2, NULL), (3, 'three');"
        "CREATE PUBLICATION shop FOR TABLE item"
    )
    # Committed by another session, between the copy and the stream.
    meanwhile = (
        "INSERT INTO item VALUES (4, 'four')",
        "UPDATE item SET id = 5 WHERE id = 1",
        "UPDATE item SET note = 'two' WHERE id = 2",
        "DELETE FROM item WHERE id = 3",
    )
    slot = database.slot("mirror")
    seen: dict[str, object] = {"execute": database.execute}
    copied = '    connection.query("COMMIT")\n'
    assert program.count(copied) == 1
    program = program.replace(
        copied, f"    for each in {meanwhile!r}:\n        execute(each)\n" + copied
    )
    program = program.replace(CONNINFO, database.dsn()).replace('"mirror"', repr(slot))
    exec(compile(program, str(PAGE), "exec"), seen)
    assert seen["mirror"] == {2: "two", 4: "four", 5: "one"}
