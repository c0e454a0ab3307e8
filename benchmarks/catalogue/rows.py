"""Who decodes rows: each table in each format, by both twins of pgrepl and by the peers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..tables import FORMATS, TABLES, Table
from . import OnTwin

PREFIX: Final = "rows"


@dataclass(frozen=True, slots=True)
class Decoding(OnTwin):
    """A line of the tables: a way to decode rows.

    `share` is the part of --rows that it is given of the reference table. `is_typed` tells whether
    the values are Python's own, `takes_binary` whether it knows columns in binary.
    """

    who: str
    group: str
    label: str
    work: str
    share: float
    is_typed: bool = True
    takes_binary: bool = True
    implementation: str | None = None

    @property
    def same_in_native(self) -> str:
        """The native twin's decoding to compare with: the same work, for peers all columns."""
        return f"pgrepl-c-{self.work.removeprefix('pgrepl-')}" if self.implementation else NATIVE


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to decode the rows of one table in one format."""

    decoding: Decoding
    table: Table
    form: str

    @property
    def name(self) -> str:
        return name_of(self.table.name, self.form, self.decoding.who)

    @property
    def environment(self) -> dict[str, str]:
        """What to set in the process's environment."""
        return self.decoding.environment

    def count(self, rows: int) -> int:
        """Return how many rows it takes where --rows is that."""
        return max(1, round(rows * self.decoding.share * self.table.weight))

    def command(self, count: int, captures: Mapping[tuple[str, str], Path]) -> list[str]:
        """Return the command of a process that decodes so many rows."""
        path = captures[self.table.name, self.form]
        program = [sys.executable, "-m", "benchmarks.rows.decode"]
        return [*program, self.decoding.work, str(count), str(path), self.table.name, self.form]


def name_of(table: str, form: str, who: str) -> str:
    """Return a contender's name."""
    return f"{PREFIX}-{table}-{form}-{who}"


def _pgrepl(implementation: str) -> Iterator[Decoding]:
    group = {"c": "pgrepl, native twin", "python": "pgrepl, pure twin"}[implementation]
    share = 1 if implementation == "c" else 1 / 32
    for work, label, part in (
        ("unread", "nothing read", 4 if implementation == "c" else 1),
        ("named", "two columns by name", 1),
        ("typed", "all columns, astuple()", 1),
        ("asdict", "all columns, asdict()", 1),
    ):
        yield Decoding(
            who=f"pgrepl-{implementation}-{work}",
            group=group,
            label=label,
            work=f"pgrepl-{work}",
            share=share * part,
            implementation=implementation,
        )


# Whom the peers are compared with, and the twin beside it.
NATIVE: Final = "pgrepl-c-typed"
PURE: Final = "pgrepl-python-typed"

DECODINGS: Final = (
    *_pgrepl("c"),
    *_pgrepl("python"),
    Decoding("psycopg", "peers", "psycopg 3's C loaders", "psycopg", 1 / 8),
    Decoding("by-hand", "peers", "standard library", "by-hand", 1 / 8, takes_binary=False),
    Decoding(
        *("pypgoutput", "peers", "pypgoutput, only str", "pypgoutput", 1 / 32),
        is_typed=False,
        takes_binary=False,
    ),
)

LINE_UP: Final = tuple(
    Contender(decoding, table, form)
    for form in FORMATS
    for table in TABLES.values()
    for decoding in DECODINGS
    if decoding.takes_binary or form == "text"
)
