"""The program that is measured: ``python -m benchmarks.rows.decode WHO ROWS CAPTURE TABLE FORMAT``.

Law: the loop that is checked is the loop that is measured. It prints the CPU seconds of the
process, user and system, that ROWS rows took; what goes before - imports, reading the capture, the
relation, the check, a warm-up - is not in them. PGREPL_IMPL chooses pgrepl's twin.
"""

from __future__ import annotations

import gc
import sys
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Final

from ..capture import load
from ..tables import FIRST_ID, TABLES, Table
from .peers import PEERS
from .pgrepl_works import PGREPL
from .work import Loop, Work

WORKS: Final[dict[str, Work]] = {**PGREPL, **PEERS}

# Every column of the wide table is NULL in one of ten rows.
_CHECKED: Final = 20
# Enough for the interpreter to specialise its instructions and for caches to fill.
_WARM_UP: Final = 200


class WrongRow(Exception):
    """A contender did not make what it should have, so that what it costs means nothing."""


def _payloads(path: Path) -> tuple[bytes, list[bytes]]:
    """Return the capture's Relation and its Inserts."""
    capture = load(path)
    payloads = capture.payloads(len(capture.ends))
    relation, *others = [payload for payload in payloads if payload[:1] == b"R"]
    if others:
        raise WrongRow(f"expected one Relation in {path.name}, got {1 + len(others)}")
    return relation, [payload for payload in payloads if payload[:1] == b"I"]


def _check(work: Work, loop: Loop, table: Table, inserts: list[bytes]) -> None:
    """See that the first rows are as they should be. Raises `WrongRow` for the first wrong one."""
    for place, payload in enumerate(inserts[:_CHECKED]):
        made = work.seen(loop([payload]), table)
        expected = work.expected(table, FIRST_ID + place)
        if len(made) != len(expected):
            raise WrongRow(f"row {place}: expected {len(expected)} values, got {len(made)}")
        for value, right in zip(made, expected, strict=True):
            # A Decimal equals another with fewer zeros, and True equals 1: text and type tell.
            if (value, type(value), str(value)) != (right, type(right), str(right)):
                raise WrongRow(f"row {place}: expected {right!r}, got {value!r}")


def main() -> None:
    who, rows, path, table_name, form = sys.argv[1:]
    work, table = WORKS[who], TABLES[table_name]
    relation, inserts = _payloads(Path(path))
    loop = work.start(relation, table, form)
    _check(work, loop, table, inserts)
    loop(islice(cycle(inserts), _WARM_UP))
    payloads = islice(cycle(inserts), int(rows))
    gc.collect()
    before = time.process_time()
    loop(payloads)
    print(time.process_time() - before)


if __name__ == "__main__":
    main()
