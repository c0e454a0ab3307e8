"""What the commands print, other than a stream: all of it at once, for people or as JSON.

Law: nothing that a server sends can do anything to a terminal. Names and messages are escaped where
they do not print, in text as PostgreSQL's ``E'...'`` strings have it, in JSON by its own escapes;
none of them is read as markup.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from .failure import CommandFailed, OutputLost

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

__all__ = [
    "bytes_text",
    "by_words",
    "duration_text",
    "escaped",
    "json_escape",
    "output_width",
    "print_json",
    "print_rich",
    "print_text",
    "printable",
]

_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
_TIMES: Final = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))
_NAMED_ESCAPES: Final = {"\b": r"\b", "\f": r"\f", "\n": r"\n", "\r": r"\r", "\t": r"\t"}
_FEW: Final = 16
"""Different characters that are replaced one by one."""
_WIDE: Final = 10_000
"""Columns of an output that is no terminal: enough that nothing is wrapped or cut."""


def printable(text: str) -> str:
    """Return text for one line, with what does not print escaped; a backslash stays as it is."""
    return escaped(text, _escape)


def escaped(text: str, escape: Callable[[str], str]) -> str:
    """Return text with what does not print escaped, each character as `escape` says."""
    if text.isprintable():
        return text
    odd = [character for character in set(text) if not character.isprintable()]
    if len(odd) > _FEW:
        return "".join(c if c.isprintable() else escape(c) for c in text)
    # Character by character would be slow where long text has a line end here and there.
    for character in odd:
        text = text.replace(character, escape(character))
    return text


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python has a byte that is no UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return _NAMED_ESCAPES.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def bytes_text(count: int) -> str:
    """Return a size in the unit that suits it, as PostgreSQL's pg_size_pretty does: 1 kB is
    1024 bytes."""
    size, unit = float(count), 0
    while abs(size) >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{count} bytes" if not unit else f"{size:.1f} {_UNITS[unit]}"


def duration_text(seconds: float) -> str:
    """Return a time that has passed in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    unit, size, smaller, divisor = next(each for each in _TIMES if seconds >= each[1])
    count, rest = int(seconds) // size, int(seconds) % size // divisor
    return f"{count} {unit} {rest} {smaller}" if rest else f"{count} {unit}"


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
