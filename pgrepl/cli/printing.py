"""What the commands print, other than a stream: all of it at once, for people or as JSON.

Law: nothing that a server sends can do anything to a terminal. Names and messages are escaped where
they do not print, in text by `escapes`, in JSON by its own escapes; none of them is read as markup.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ..escapes import escaped, printable
from .failure import CommandFailed, OutputLost

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "by_words",
    "json_escape",
    "output_width",
    "print_json",
    "print_notice",
    "print_rich",
    "print_text",
]

_NOTICE_INDENT: Final = " " * len("pgrepl: ")
_NARROWEST: Final = 40
"""Columns that a notice takes at least, however narrow the terminal is."""
_WIDE: Final = 10_000
"""Columns of an output that is no terminal: enough that nothing is wrapped or cut."""


def print_text(text: str) -> None:
    """Write text and a line end to standard output, to the last byte.

    Raises `OutputLost` where nobody reads any more, `CommandFailed` where there is no output, and
    `OSError`.
    """
    output = sys.stdout
    if output is None:
        raise CommandFailed("expected an open standard output, it is closed")
    # A terminal of another encoding shows by its number what it lacks.
    encoding = output.encoding or "utf-8"
    try:
        output.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
        output.flush()
    except BrokenPipeError:
        raise OutputLost from None


def print_notice(text: str) -> None:
    """Write what is wrong, or goes on, to standard error behind the program's name: one line, which
    a terminal gets in several that end between words."""
    errors = sys.stderr
    if errors is None:
        return
    line = printable("pgrepl: " + "; ".join(text.splitlines()))
    if errors.isatty():
        width = max(_terminal_width(errors.fileno()), _NARROWEST)
        line = textwrap.fill(
            line,
            width,
            subsequent_indent=_NOTICE_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
    print(line, file=errors, flush=True)


def _terminal_width(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns
    except OSError:
        return _WIDE


def print_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a JSON document to standard output, indented."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    print_text("\n".join(_json_line(line) for line in text.split("\n")))


def _json_line(line: str) -> str:
    # Line ends and what else is below a blank is escaped inside of strings already.
    return escaped(line, json_escape)


def json_escape(character: str) -> str:
    """Return a character as JSON escapes it inside of a string."""
    return json.dumps(character)[1:-1]


def by_words(words: Iterable[str], width: int) -> Iterator[str]:
    """Yield lines of at most `width` columns; a word that is longer has one of its own."""
    from rich.cells import cell_len

    line, length = "", 0
    for word in words:
        size = cell_len(word)
        if line and length + 1 + size > width:
            yield line
            line, length = word, size
        else:
            line = f"{line} {word}" if line else word
            length += size + 1 if length else size
    yield line


def output_width() -> int:
    """Return how many columns standard output has: those of a terminal, else as good as no end."""
    return _console().width


def print_rich(*parts: RenderableType) -> None:
    """Write what rich renders to standard output: in colours, and as wide as a terminal is."""
    from rich.text import Text

    console = _console()
    with console.capture() as capture:
        for part in parts:
            # Text keeps its lines, since what is copied from a terminal must be whole.
            console.print(part, soft_wrap=isinstance(part, Text))
    # A table's last column is padded to the width of the table.
    print_text("\n".join(line.rstrip() for line in capture.get().rstrip("\n").split("\n")))


def _console() -> Console:
    if importlib.util.find_spec("rich") is None:
        raise CommandFailed(
            "the program needs the package rich, which is not installed: "
            "install pgrepl with its extra [cli], or ask for --json",
            status=2,
        )
    from rich.console import Console

    console = Console(markup=False, emoji=False, highlight=False)
    if not console.is_terminal:
        console.width = _WIDE
    return console
