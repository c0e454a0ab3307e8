"""The library's errors and log records in the program's words.

The library names what its callers have: parameters, methods, types. Whoever runs the program has
options and commands.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Final

from ..errors import Error, SlotInUse, SlotNotFound
from ..escapes import printable
from .failure import CommandFailed

__all__ = ["DROPPING", "LISTING", "RecordFormatter", "advised", "in_programs_words"]

LISTING: Final[dict[type[Error], str]] = {SlotNotFound: " pgrepl slots list  shows which there are"}
"""Advice on a slot that is not there."""
DROPPING: Final[dict[type[Error], str]] = {
    **LISTING,
    SlotInUse: " pgrepl slots drop --wait  drops it as soon as nobody uses it any more",
}
"""Advice on a slot that is to be dropped."""

_WORDS: Final = (
    (
        "expected a tablespace_mapping for the tablespace in ",
        "expected -T OLD=NEW (--tablespace-mapping) for the tablespace in ",
    ),
    (
        "or stream its WAL over a connection with replication='physical'",
        "or receive its WAL with  pgrepl receivewal",
    ),
    (
        "read what that plugin writes with stream_raw()",
        "read what that plugin writes with --plugin and its name",
    ),
    (
        'on_missing_publication="warn" lets that come',
        "--on-missing-publication warn lets that come",
    ),
    ("with pg_replication_slot_advance(), or", "with  pgrepl slots advance,  or"),
    ("if_not_exists=True takes ", "--if-not-exists takes "),
    (". With a ResumeToken as start it is checked", ""),
)
"""What the library says, and what the program says instead."""

_PLUGIN: Final = re.compile(r"(is of plugin '(\w{1,63})'; .* writes with )stream_raw\(\)", re.ASCII)
_INDENT: Final = " " * 8


def in_programs_words(text: str) -> str:
    """Return what the library says with options and commands in the place of its own names."""
    text = _PLUGIN.sub(r"\1--plugin \2", text)
    for librarys, programs in _WORDS:
        text = text.replace(librarys, programs)
    return text


@contextlib.contextmanager
def advised(advice: Mapping[type[Error], str]) -> Iterator[None]:
    """Raise errors of the classes in `advice` as `CommandFailed` that ends with what it says."""
    try:
        yield
    except tuple(advice) as error:
        then = next(advice[each] for each in advice if isinstance(error, each))
        raise CommandFailed(f"{error}; {then}") from None


class RecordFormatter(logging.Formatter):
    """Log records for people: the texts of a notice line by line, and as the server has them."""

    def format(self, record: logging.LogRecord) -> str:
        notice: tuple[str, ...] | None = getattr(record, "notice", None)
        text = super().format(record) if notice is None else "\n".join(notice)
        first, *others = in_programs_words(text).split("\n")
        return "\n".join(
            [f"pgrepl: {printable(first)}", *(_INDENT + printable(line) for line in others)]
        )
