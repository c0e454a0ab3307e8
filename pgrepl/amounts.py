"""Sizes and times as people read them."""

from __future__ import annotations

from typing import Final

__all__ = ["bytes_text", "duration_text"]

_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB", "PB", "EB")
_TIMES: Final = (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1))


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
