"""Values that PostgreSQL has and Python has not: intervals, ranges, arrays with bounds, composites.

Law: nothing is lost. A class here says all that the server said of a value and no more; it compares
by that, and leaves arithmetic to whoever knows what it should mean. `str()` gives the text that the
server writes, and that it reads as the same value again.

Source: PostgreSQL documentation, "Date/Time Types", "Range Types", "Arrays", "Composite Types".
"""

from __future__ import annotations

import collections
import functools
import keyword
import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final

from .public import imported_from

__all__ = [
    "Array",
    "Interval",
    "Multirange",
    "Range",
    "composite_class",
    "float_text",
    "text_of",
]

_INT32 = 1 << 31
_INT64 = 1 << 63


@imported_from("pgrepl")
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


@imported_from("pgrepl")
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

    def __str__(self) -> str:
        """Return the server's text, ``[1,5)``."""
        if self.empty:
            return "empty"
        lower, upper = (
            "" if bound is None else _doubled(text_of(bound), _RANGE_MARKS)
            for bound in (self.lower, self.upper)
        )
        return f"{self.bounds[0]}{lower},{upper}{self.bounds[1]}"


@imported_from("pgrepl")
class Multirange(tuple[Any, ...]):
    """A multirange: a tuple of its ranges, which it equals, in their order."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Multirange({super().__repr__()})"

    def __str__(self) -> str:
        """Return the server's text, ``{[1,5),[7,9)}``."""
        return f"{{{','.join(map(text_of, self))}}}"


@imported_from("pgrepl")
class Array(list[Any]):
    """An array: a list, of lists where it has more dimensions, that knows its lower bounds.

    It equals the plain list of the same elements; NULL is None. `lower_bounds` has the index of the
    first element in SQL for each dimension, nearly always 1, and is empty for an empty array.
    `delimiter` is what stands between the elements in the server's text: a comma, but for boxes
    a semicolon, and for int2vector and oidvector, which have no braces, a blank.
    """

    __slots__ = ("delimiter", "lower_bounds")

    lower_bounds: tuple[int, ...]
    delimiter: str

    def __init__(
        self,
        elements: Iterable[Any] = (),
        lower_bounds: tuple[int, ...] | None = None,
        delimiter: str = ",",
    ):
        super().__init__(elements)
        self.lower_bounds = (1,) * bool(self) if lower_bounds is None else lower_bounds
        self.delimiter = delimiter

    def __repr__(self) -> str:
        if all(bound == 1 for bound in self.lower_bounds):
            return f"Array({super().__repr__()})"
        return f"Array({super().__repr__()}, lower_bounds={self.lower_bounds})"

    def __str__(self) -> str:
        """Return the server's text, ``{1,NULL,3}``; with a lower bound not 1 ``[0:1]={1,3}``."""
        if self.delimiter == " ":
            return " ".join(map(text_of, self))
        bounds = ""
        if any(bound != 1 for bound in self.lower_bounds):
            level: Any = self
            for lower in self.lower_bounds:
                bounds += f"[{lower}:{lower + len(level) - 1}]"
                level = level[0]
            bounds += "="
        return bounds + self._braced(self)

    def _braced(self, elements: list[Any]) -> str:
        # An array within one, of a domain over arrays, is an element; a list is a dimension.
        texts = [
            self._braced(each)
            if type(each) is list
            else "NULL"
            if each is None
            else self._element(text_of(each))
            for each in elements
        ]
        return f"{{{self.delimiter.join(texts)}}}"

    def _element(self, text: str) -> str:
        plain = text and text.upper() != "NULL" and self.delimiter not in text
        if plain and not _ARRAY_MARKS.search(text):
            return text
        return '"' + text.replace("\\", r"\\").replace('"', r"\"") + '"'


# What is put in quotes inside of an array, a range, a composite.
_ARRAY_MARKS: Final = re.compile(r'[{}"\\ \t\n\v\f\r]')
_RANGE_MARKS: Final = re.compile(r'[\[\](),"\\ \t\n\v\f\r]|^$')
_COMPOSITE_MARKS: Final = re.compile(r'[(),"\\ \t\n\v\f\r]|^$')


def _doubled(text: str, marks: re.Pattern[str]) -> str:
    """Put text in quotes where it has such marks, with quotes and backslashes twice."""
    if not marks.search(text):
        return text
    return '"' + text.replace("\\", r"\\").replace('"', '""') + '"'


def text_of(value: Any) -> str:
    """Return a value, which is not None, as the server writes it.

    One that docs/types.md does not know is taken by its `str()`.
    """
    match value:
        case str():
            return value
        case bool():
            return "t" if value else "f"
        case float():
            return float_text(value)
        case Decimal():
            return f"{value:f}"
        case bytes():
            return rf"\x{value.hex()}"
        case datetime():
            return _clock_text(value, value.isoformat(" "))
        case time():
            return _clock_text(value, value.isoformat())
        case Multirange():
            return str(value)
        case tuple():
            parts = ("" if v is None else _doubled(text_of(v), _COMPOSITE_MARKS) for v in value)
            return f"({','.join(parts)})"
        case dict():
            return ", ".join(f"{_pair_part(k)}=>{_pair_part(v)}" for k, v in value.items())
    return str(value)


def _clock_text(value: datetime | time, text: str) -> str:
    """Return the text of a time without what the server leaves out: zeros at the end."""
    offset = ""
    if value.tzinfo is not None:
        at = max(text.rfind("+"), text.rfind("-"))
        text, offset = text[:at], text[at:].removesuffix(":00")
    return (text.rstrip("0") if "." in text else text) + offset


def _pair_part(text: Any) -> str:
    """Return a key or a value of an hstore."""
    if text is None:
        return "NULL"
    return '"' + str(text).replace("\\", r"\\").replace('"', r"\"") + '"'


_MOST_DIGITS: Final = 17  # and no float needs more


def float_text(value: float) -> str:
    """Return a float8 as the server writes it: the shortest digits that give it again.

    Python's `repr` says the same in nearly the same form. But whole numbers have no point, an
    exponent is written from 1e15 on and not from 1e16, and digits that lie just between two
    numbers, and are read as this one because it is the even one, do not count.
    """
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    text = repr(value)
    if abs(value) < 1e15:  # what lies between two of these numbers has more digits than they
        return text.removesuffix(".0")
    if _lies_between(text, value):
        text = _more_digits(value)
    if "e" in text:
        return text
    sign = "-" if value < 0 else ""
    digits = text.removesuffix(".0").removeprefix("-").replace(".", "").rstrip("0")
    return f"{sign}{digits[0]}{'.' if digits[1:] else ''}{digits[1:]}e+15"


def _lies_between(text: str, value: float) -> bool:
    """Whether the number written is as far from `value` as from the next one to it."""
    difference = abs(Fraction(text) - Fraction(value))
    # No power of two, where the next one below is nearer, has such digits.
    return 2 * difference == Fraction(math.ulp(value))


def _more_digits(value: float) -> str:
    """Return the fewest digits that lie between no two numbers, with an exponent."""
    texts = (f"{value:.{digits}e}" for digits in range(_MOST_DIGITS))
    return next(text for text in texts if float(text) == value and not _lies_between(text, value))


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
    # No field is called like this: what begins with an underscore is called by its place.
    names = {"_names": fields}
    content = {"__slots__": (), "__reduce__": reduce, "__module__": __name__, **names}
    return type(usable, (base,), content)


def _is_plain(name: str) -> bool:
    # Names are code to a named tuple, and Python takes different ones for the same: `ﬁ` and `fi`.
    return name.isidentifier() and unicodedata.is_normalized("NFKC", name)


def _composite(name: str, fields: tuple[str, ...], values: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple.__new__(composite_class(name, fields), values)
