"""The edits that take the rules out of the code: edits.txt, which says what is in it, read."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["EDITS", "Edit", "StaleEdit"]

_HEAD: Final = re.compile(r"V([0-9]+) (.+) @ (.+)")


class StaleEdit(Exception):
    """The code is no longer what an edit was made for."""


@dataclass
class Change:
    """Lines of a file, and what they become."""

    file: str
    old: str = ""
    new: str = ""


@dataclass
class Edit:
    """One rule, broken in one way."""

    rule: int
    what: str
    changes: list[Change]

    @property
    def needs_a_build(self) -> bool:
        """Whether it is an edit of what is compiled."""
        return not all(change.file.endswith(".py") for change in self.changes)

    def apply(self, root: Path, *, write: bool = True) -> None:
        """Make the changes in the tree there. Raises `StaleEdit`."""
        for change in self.changes:
            path = root / change.file
            text = path.read_text("utf-8")
            if (count := text.count(change.old)) != 1:
                raise StaleEdit(
                    f"V{self.rule} {self.what}: expected these lines once in {change.file}, "
                    f"got them {count} times:\n{change.old}"
                )
            if write:
                path.write_text(text.replace(change.old, change.new), "utf-8")


def _read(text: str) -> list[Edit]:
    edits: list[Edit] = []
    for line in text.splitlines():
        mark, rest = line[:1], line[1:] + "\n"
        if match := _HEAD.fullmatch(line):
            edits.append(Edit(int(match[1]), match[2], [Change(match[3])]))
        elif mark == "@":
            edits[-1].changes.append(Change(rest.strip()))
        elif edits:
            change = edits[-1].changes[-1]
            change.old += rest if mark != "+" else ""
            change.new += rest if mark != "-" else ""
    return edits


EDITS: Final = _read(Path(__file__).with_name("edits.txt").read_text("utf-8"))
