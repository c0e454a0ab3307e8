"""``pgrepl stream`` into a file, killed in the middle of a line: the next run begins a line."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.live.program import run, running
from tests.live.streams import create_slot, eventually, wait_until_free
from tests.live.test_cli_recvlogical import position, shop, stream
from tests.support.clusters import Database

__all__ = ["shop"]

pytest.importorskip("click")


def told(path: Path, form: str) -> list[int]:
    """The rows that are told of, each in a line that is as lines of that format are."""
    found = []
    for line in path.read_text().splitlines():
        if form == "json":
            message = json.loads(line)
            if message["kind"] == "insert":
                found.append(int(message["new"]["id"]))
            continue
        match = re.fullmatch(
            r"INSERT public\.item id=(\d+) note='x+' raw=NULL"
            r"|table public\.item: INSERT: id\[integer\]:(\d+) note\[text\]:'x+' raw\[bytea\]:null"
            r"|(?:BEGIN|COMMIT)[^x]*",
            line,
        )
        assert match, line[:100] + line[-100:]
        found += [int(number) for number in match.groups() if number]
    return found


@pytest.mark.parametrize("form", ["text", "json", "raw"])
@pytest.mark.parametrize("kept", [0, 5_000_000])
def test_a_line_that_was_torn(shop: Database, tmp_path: Path, form: str, kept: int) -> None:
    """By a kill -9; some of a long row had come to the disk, or nothing but its beginning."""
    slot = create_slot(shop, plugin="test_decoding" if form == "raw" else "pgoutput")
    path = tmp_path / "out"
    words = stream(shop, slot, "--format", form, "-f", str(path), "-F", "3600", "-s", "3600")
    words += ("--plugin", "test_decoding") if form == "raw" else ("-P", "p")
    insert = "INSERT INTO item SELECT %s, repeat('x', %s)"
    shop.execute(insert, [1, 100])
    with running(*words) as process:
        eventually(lambda: path.exists() and path.stat().st_size, "it has begun")
        shop.execute(insert, [2, 8_000_000])
        eventually(lambda: path.stat().st_size > 8_000_000, "the long row is there")
        process.kill()
    content = path.read_bytes()
    torn = content[: content.rindex(b"x" * 1_000_000) - 7_000_000 + 1 + kept]
    assert not torn.endswith(b"\n")
    path.write_bytes(torn)
    shop.execute(insert, [3, 100])
    wait_until_free(shop, slot)
    status, out, err = run(*words, "-E", position(shop), "-n")
    assert (status, out) == (0, "")
    assert re.fullmatch(
        rf"pgrepl: {path} ended in the middle of a line, [^\n]* \d+ bytes [^\n]* off again\n", err
    )
    # What was whole is there twice, since nothing was acknowledged; what was torn only once.
    assert told(path, form) == [1, 1, 2, 3]
    assert path.stat().st_size > 8_000_000
