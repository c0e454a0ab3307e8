"""Keyword arguments of `connect`, as a type checker sees them, and at run time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
import pgrepl.aio
from pgrepl.conninfo import ConninfoKeywords
from pgrepl.conninfo.keywords import KEYWORDS
from pgrepl.errors import UsageError

PROGRAM: Final = """
import asyncio
from pathlib import Path
from typing import Unpack

import pgrepl
import pgrepl.aio
from pgrepl import aio
from pgrepl.conninfo import ConninfoKeywords

pgrepl.connect("", host="db", port=5433, connect_timeout=0.5, keepalives=False)
pgrepl.connect(replication="physical", password=None, sslrootcert=Path("ca"))
pgrepl.connect(databse="shop")
pgrepl.connect(host=5)
pgrepl.connect(gsslib="gssapi")


def service(**keywords: Unpack[ConninfoKeywords]) -> pgrepl.Connection:
    return pgrepl.connect(**keywords)


async def main() -> None:
    async with aio.connect(user="ann") as connection:
        await connection.disconnect()
    await aio.connect(databse="shop")
    await aio.AsyncConnection.connect(databse="shop")

service(databse="shop")
asyncio.run(main())
"""


def test_they_are_those_of_the_table() -> None:
    wanted = {keyword.name for keyword in KEYWORDS.values() if not keyword.refusal}
    kinds: dict[str, Any] = ConninfoKeywords.__annotations__
    assert kinds.keys() == wanted - {"replication"}  # which is a parameter of its own
    for name, kind in kinds.items():
        assert ("_Path" in kind.__forward_arg__) == KEYWORDS[name].is_path
        assert ("_Secret" in kind.__forward_arg__) == KEYWORDS[name].is_secret


def test_a_type_checker_finds_misspelt_ones(tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(program)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    lines = PROGRAM.splitlines()
    found = {int(line.split(":")[1]) for line in checked.stdout.splitlines() if ": error:" in line}
    assert [lines[number - 1].strip() for number in sorted(found)] == [
        'pgrepl.connect(databse="shop")',
        "pgrepl.connect(host=5)",
        'pgrepl.connect(gsslib="gssapi")',
        'await aio.connect(databse="shop")',
        'await aio.AsyncConnection.connect(databse="shop")',
        'service(databse="shop")',
    ]


@pytest.mark.parametrize(
    ("name", "meant"), [("databse", "dbname"), ("sslmod", "sslmode"), ("pasword", "password")]
)
def test_misspelt_ones_are_named_at_run_time(name: str, meant: str) -> None:
    misspelt: Any = {name: "x"}
    for connect in (pgrepl.connect, pgrepl.aio.connect):
        with pytest.raises(UsageError, match=f"{name}.*{meant}"):
            connect(**misspelt)
