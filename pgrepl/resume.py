"""Where a consumer goes on: the one position that is safe to keep outside of the server.

Law: a position means something only together with the history that it is a position in, so that a
token names system and timeline too, and it is the end of a transaction, never the middle of one:
what was handled behind it is counted in changes. Its text has one form alone, so that two tokens
are equal if and only if their texts are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from .lsn import Lsn
from .public import imported_from

__all__ = ["ResumeToken"]

_MAX_SYSTEMID: Final = (1 << 64) - 1
_MAX_TIMELINE: Final = (1 << 32) - 1
_MAX_INDEX: Final = (1 << 63) - 1

_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
# A number's digits in the way that each part is printed: without leading zeros.
_HEX: Final = "(?:0|[1-9A-F][0-9A-F]{0,7})"
_TEXT: Final = re.compile(
    rf"v1\.(?P<systemid>{_NUMBER.pattern})\.(?P<timeline>[1-9][0-9]{{0,9}})"
    rf"\.(?P<high>{_HEX})-(?P<low>{_HEX})(?:\.(?P<index>[1-9][0-9]{{0,18}}))?",
    re.ASCII,
)


@imported_from("pgrepl")
@dataclass(frozen=True, slots=True)
class ResumeToken:
    """The end of the last transaction that was handled whole, and what was handled behind it.

    `systemid` and `timeline` as IDENTIFY_SYSTEM tells them; `end_lsn`: of that transaction, as its
    Commit has it; `index`: how many changes of the transaction that follows were handled already,
    0 for none. There is no order among tokens: those of two timelines cannot be compared by their
    positions.

    ``str(token)`` is its text, ``v1.7312345678901234567.1.1-F73E0220`` with ``.5`` behind it for an
    index of 5: letters, digits, dots and a hyphen, which mean the same in URLs, file names and
    shells. Raises `ValueError` for numbers that no server has, `TypeError` for other types.
    """

    systemid: str
    timeline: int
    end_lsn: Lsn
    index: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.systemid, str):
            raise TypeError(
                f"expected a str for a system identifier, got {type(self.systemid).__name__}"
            )
        if not _NUMBER.fullmatch(self.systemid) or int(self.systemid) > _MAX_SYSTEMID:
            raise ValueError(
                "expected a system identifier, decimal digits of a number up to 2**64-1, got "
                f"{self.systemid[:40]!r}"
            )
        _require("timeline", self.timeline, 1, _MAX_TIMELINE)
        _require("index", self.index, 0, _MAX_INDEX)
        object.__setattr__(self, "end_lsn", Lsn(self.end_lsn))

    def __str__(self) -> str:
        position = str(self.end_lsn).replace("/", "-")
        index = f".{self.index}" if self.index else ""
        return f"v1.{self.systemid}.{self.timeline}.{position}{index}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the token behind a text that `str()` made.

        Raises `ValueError` for any other text: surrounding space, lower case and leading zeros
        included.
        """
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(
                "expected a resume token such as 'v1.7312345678901234567.1.1-F73E0220' (system "
                "identifier, timeline, position and, unless it is 0, index), as str() of a token "
                f"gives it, got {text[:80]!r}"
            )
        return cls(
            match["systemid"],
            int(match["timeline"]),
            Lsn(f"{match['high']}/{match['low']}"),
            int(match["index"] or 0),
        )


def _require(name: str, value: int, least: int, most: int) -> None:
    if not isinstance(value, int):
        raise TypeError(f"expected an int for the token's {name}, got {type(value).__name__}")
    if not least <= value <= most:
        raise ValueError(f"expected the token's {name} between {least} and {most}, got {value}")
