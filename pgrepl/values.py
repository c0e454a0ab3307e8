"""Values that PostgreSQL has and Python has not: intervals, ranges, arrays with bounds, composites.

Law: nothing is lost. A class here says all that the server said of a value and no more; it compares
by that, and leaves arithmetic to whoever knows what it should mean.

Source: PostgreSQL documentation, "Date/Time Types", "Range Types", "Arrays", "Composite Types".
"""

from __future__ import annotations

import collections
import functools
import keyword
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

__all__ = ["Array", "Interval", "Range", "composite_class"]

_INT32 = 1 << 31
_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Interval:
    """An ``interval``: months, days and microseconds, which PostgreSQL never mixes.

    A month has no length in days and a day none in hours, so intervals have no order, and two are
    equal only when all three numbers are: not ``24:00:00`` and ``1 day``, which SQL finds equal.
    `str()` gives the server's text under IntervalStyle postgres. Raises `ValueError` for a number
    outside PostgreSQL's range: 32 bits for months and days, 64 bits for microseconds, all signed.
    """

    months: int = 0
    days: int = 0
    microseconds: int = 0

    def __post_init__(self) -> None:
        for name, value, limit in (
            ("months", self.months, _INT32),
            ("days", self.days, _INT32),
            ("microseconds", self.microseconds, _INT64),
        ):
            if not -limit <= value < limit:
                raise ValueError(
                    f"expected {name} between {-limit} and {limit - 1} in an interval, got {value}"
                )

    def timedelta(self) -> timedelta:
        """Return the same length as a `datetime.timedelta`, a day being 24 hours.

        Raises `ValueError` where there are months, `OverflowError` beyond 999999999 days.
        """
        if self.months:
            raise ValueError(
                f"expected an interval without months, got {str(self)!r}: a month has no fixed "
                "length; add it to a date instead"
            )
        return timedelta(days=self.days, microseconds=self.microseconds)

    def __str__(self) -> str:
        years = abs(self.months) // 12 * (1 if self.months > 0 else -1)
        parts = []
        after_negative = False  # then a positive number has a sign too
        for value, unit in ((years, "year"), (self.months - 12 * years, "mon"), (self.days, "day")):
            if value:
                plus = "+" if after_negative and value > 0 else ""
                parts.append(f"{plus}{value} {unit}{'' if value == 1 else 's'}")
                after_negative = value < 0
        if self.microseconds or not parts:
            parts.append(self._clock(after_negative))
        return " ".join(parts)

    def _clock(self, after_negative: bool) -> str:
        sign = "-" if self.microseconds < 0 else "+" if after_negative else ""
        seconds, fraction = divmod(abs(self.microseconds), 1_000_000)
        minutes, seconds = divmod(seconds, 60)
        text = f"{sign}{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"
        return f"{text}.{fraction:06}".rstrip("0") if fraction else text


@dataclass(frozen=True, slots=True)
class Range:
    """A range: its bounds, None for none, and in `bounds` whether they belong to it: ``[)``.

    A bound that there is none of does not belong to the range, as in PostgreSQL. The empty range
    has no bounds: ``Range(empty=True)``, equal to any other empty one. Raises `ValueError` for
    other brackets, or bounds given to an empty range.
    """

    lower: Any = None
    upper: Any = None
    bounds: str = "[)"
    empty: bool = False

    def __post_init__(self) -> None:
        if self.bounds not in ("[)", "(]", "()", "[]"):
            raise ValueError(f"expected bounds '[)', '(]', '()' or '[]', got {self.bounds!r}")
        if self.empty and not (self.lower is None and self.upper is None):
            raise ValueError("expected no lower and no upper bound for an empty range")
        left = "(" if self.lower is None else self.bounds[0]
        right = ")" if self.upper is None else self.bounds[1]
        # A frozen dataclass sets what it derives this way.
        object.__setattr__(self, "bounds", left + right)

    @property
    def lower_inc(self) -> bool:
        """Whether the lower bound belongs to the range."""
        return self.bounds[0] == "["

    @property
    def upper_inc(self) -> bool:
        """Whether the upper bound belongs to the range."""
        return self.bounds[1] == "]"

    def __repr__(self) -> str:
        if self.empty:
            return "Range(empty=True)"
        return f"Range({self.lower!r}, {self.upper!r}, {self.bounds!r})"


class Array(list[Any]):
    """An array: a list, of lists where it has more dimensions, that knows its lower bounds.

    It equals the plain list of the same elements; NULL is None. `lower_bounds` has the index of the
    first element in SQL for each dimension, nearly always 1, and is empty for an empty array.
    """

    __slots__ = ("lower_bounds",)

    lower_bounds: tuple[int, ...]

    def __init__(self, elements: Iterable[Any] = (), lower_bounds: tuple[int, ...] | None = None):
        super().__init__(elements)
        self.lower_bounds = (1,) * bool(self) if lower_bounds is None else lower_bounds

    def __repr__(self) -> str:
        if all(bound == 1 for bound in self.lower_bounds):
            return f"Array({super().__repr__()})"
        return f"Array({super().__repr__()}, lower_bounds={self.lower_bounds})"


# By another name, since type checkers want to know the fields of a named tuple beforehand.
_named_tuple: Final[Callable[..., type[tuple[Any, ...]]]] = collections.namedtuple


@functools.lru_cache(maxsize=1024)
def composite_class(name: str, fields: tuple[str, ...]) -> type[tuple[Any, ...]]:
    """Return the class of a composite's values: named tuples, which equal plain ones.

    A field that Python has no attribute for - ``"class"``, ``"a b"``, ``"_x"``, the second of a
    name - is called by its place, ``_0`` for the first. The values can be pickled.
    """

    def reduce(value: tuple[Any, ...]) -> tuple[Any, ...]:
        return _composite, (name, fields, tuple(value))

    usable = name if _is_plain(name) and not keyword.iskeyword(name) else "composite"
    base = _named_tuple(
        usable, [field if _is_plain(field) else "" for field in fields], rename=True
    )
    content = {"__slots__": (), "__reduce__": reduce, "__module__": __name__}
    return type(usable, (base,), content)


def _is_plain(name: str) -> bool:
    # Names are code to a named tuple, and Python takes different ones for the same: `ﬁ` and `fi`.
    return name.isidentifier() and unicodedata.is_normalized("NFKC", name)


def _composite(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple.__new__(composite_class(name, fields), values)
