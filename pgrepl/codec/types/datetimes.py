"""Dates, times and intervals; how the functions behave is told in scalars.py.

What Python's types cannot hold - infinity, years before 1 and after 9999, 24:00 - is the server's
text: it is left as it came, and written from binary as the server writes it, in UTC where a time
has a zone.

Source: PostgreSQL documentation, "Date/Time Types" and "Date/Time Output".
"""

from __future__ import annotations

import re
import struct
from datetime import UTC, date, datetime, time, timedelta, timezone
from typing import Any, Final

from ...values import Interval
from .fields import fixed, size_error

_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
_OFFSET = r"[-+](?:[01][0-9]|2[0-3])(?::[0-5][0-9]){0,2}"
_DAY = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


def _pattern(text: str) -> re.Pattern[bytes]:
    return re.compile(text.encode())


# fromisoformat() takes other forms of ISO 8601 as well, and from Python 3.14 on turns 24:00 into
# the next day: only what PostgreSQL writes gets that far.
_DATE_FORM = _pattern(_DAY)
_TIME_FORM = _pattern(_TIME)
_TIMETZ_FORM = _pattern(_TIME + _OFFSET)
_TIMESTAMP_FORM = _pattern(f"{_DAY} {_TIME}")
_TIMESTAMPTZ_FORM = _pattern(f"{_DAY} {_TIME}{_OFFSET}")


def date_text(data: bytes) -> Any:
    text = data.decode()
    try:
        return date.fromisoformat(text) if _DATE_FORM.fullmatch(data) else text
    except ValueError:  # no such day, or the year 0
        return text


def time_text(data: bytes) -> Any:
    text = data.decode()
    return time.fromisoformat(text) if _TIME_FORM.fullmatch(data) else text


def timetz_text(data: bytes) -> Any:
    text = data.decode()
    return time.fromisoformat(text) if _TIMETZ_FORM.fullmatch(data) else text


def timestamp_text(data: bytes) -> Any:
    text = data.decode()
    try:
        return datetime.fromisoformat(text) if _TIMESTAMP_FORM.fullmatch(data) else text
    except ValueError:
        return text


def timestamptz_text(data: bytes) -> Any:
    text = data.decode()
    try:
        return datetime.fromisoformat(text) if _TIMESTAMPTZ_FORM.fullmatch(data) else text
    except ValueError:
        return text


_DAY_MICROSECONDS = 86_400_000_000
_EPOCH_ORDINAL = date(2000, 1, 1).toordinal()
_ERA_DAYS, _ERA_YEARS = 146097, 400  # after which the Gregorian calendar begins again
_EPOCH = datetime(2000, 1, 1)
_EPOCH_UTC = datetime(2000, 1, 1, tzinfo=UTC)

_TIMETZ: Final = struct.Struct(">qi")
_INTERVAL: Final = struct.Struct(">qii")

_days = fixed("date", ">i")
_microseconds = fixed("time", ">q")
_timestamp = fixed("timestamp", ">q")
_timestamptz = fixed("timestamptz", ">q")

_DATE_WORDS: Final = {(1 << 31) - 1: "infinity", -(1 << 31): "-infinity"}
_TIMESTAMP_WORDS: Final = {(1 << 63) - 1: "infinity", -(1 << 63): "-infinity"}
_INTERVAL_WORDS: Final = {
    ((1 << 63) - 1, (1 << 31) - 1, (1 << 31) - 1): "infinity",
    (-(1 << 63), -(1 << 31), -(1 << 31)): "-infinity",
}


def _day_text(days: int) -> tuple[str, str]:
    """Return the text of a day in any year, and what comes at the end of it: BC or nothing."""
    era, day = divmod(days + _EPOCH_ORDINAL - 1, _ERA_DAYS)
    within = date.fromordinal(day + 1)
    year = within.year + era * _ERA_YEARS
    shown = year if year > 0 else 1 - year
    return f"{shown:04}-{within.month:02}-{within.day:02}", "" if year > 0 else " BC"


def _clock_text(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return f"{text}.{fraction:06}".rstrip("0") if fraction else text


def _offset_text(seconds: int) -> str:
    """Return an offset east of UTC as the server writes it, no more of it than there is."""
    east = abs(seconds)
    text = f"{'-' if seconds < 0 else '+'}{east // 3600:02}"
    if east % 3600:
        text += f":{east // 60 % 60:02}"
    return f"{text}:{east % 60:02}" if east % 60 else text


def _timestamp_text(microseconds: int, offset: str) -> str:
    days, rest = divmod(microseconds, _DAY_MICROSECONDS)
    day, era = _day_text(days)
    return f"{day} {_clock_text(rest)}{offset}{era}"


def date_binary(data: bytes) -> Any:
    days = _days(data)
    try:
        return date.fromordinal(days + _EPOCH_ORDINAL)
    except (ValueError, OverflowError):
        return _DATE_WORDS.get(days) or "".join(_day_text(days))


def _checked_clock(microseconds: int) -> int:
    if not 0 <= microseconds <= _DAY_MICROSECONDS:
        raise ValueError(
            f"expected a time of 0 to {_DAY_MICROSECONDS} microseconds, got {microseconds}"
        )
    return microseconds


def _clock(microseconds: int, zone: timezone | None = None) -> time:
    seconds, fraction = divmod(microseconds, 1_000_000)
    return time(seconds // 3600, seconds // 60 % 60, seconds % 60, fraction, zone)


def time_binary(data: bytes) -> Any:
    microseconds = _checked_clock(_microseconds(data))
    if microseconds == _DAY_MICROSECONDS:
        return _clock_text(microseconds)
    return _clock(microseconds)


def timetz_binary(data: bytes) -> Any:
    if len(data) != _TIMETZ.size:
        raise size_error("timetz", _TIMETZ.size, data)
    microseconds, west = _TIMETZ.unpack(data)
    _checked_clock(microseconds)
    if not -86400 < west < 86400:
        raise ValueError(f"expected an offset of less than a day for a timetz, got {west} seconds")
    if microseconds == _DAY_MICROSECONDS:
        return _clock_text(microseconds) + _offset_text(-west)
    return _clock(microseconds, timezone(timedelta(seconds=-west)) if west else UTC)


def timestamp_binary(data: bytes) -> Any:
    microseconds = _timestamp(data)
    try:
        return _EPOCH + timedelta(0, 0, microseconds)
    except OverflowError:
        return _TIMESTAMP_WORDS.get(microseconds) or _timestamp_text(microseconds, "")


def timestamptz_binary(data: bytes) -> Any:
    """In UTC: the binary form has no other zone."""
    microseconds = _timestamptz(data)
    try:
        return _EPOCH_UTC + timedelta(0, 0, microseconds)
    except OverflowError:
        return _TIMESTAMP_WORDS.get(microseconds) or _timestamp_text(microseconds, "+00")


def _unit(name: str) -> str:
    # A blank only before something else, so that the text cannot end with one.
    return rf"(?:(?P<{name}>[-+]?[0-9]{{1,10}}) {name}s?(?: (?=[^ ])|\Z))?"


_INTERVAL_FORM = _pattern(
    r"(?=.)"
    + "".join(map(_unit, ("year", "mon", "day")))
    + r"(?:(?P<sign>[-+]?)(?P<hour>[0-9]{2,10}):(?P<minute>[0-5][0-9]):(?P<second>[0-5][0-9])"
    + r"(?:\.(?P<fraction>[0-9]{1,6}))?)?"
)


def interval_text(data: bytes) -> Any:
    form = _INTERVAL_FORM.fullmatch(data)
    if form is None:
        return data.decode()
    year, month, day, sign, hour, minute, second, fraction = form.groups(b"0")
    seconds = (int(hour) * 60 + int(minute)) * 60 + int(second)
    microseconds = seconds * 1_000_000 + int(fraction.ljust(6, b"0"))
    try:
        return Interval(
            int(year) * 12 + int(month), int(day), -microseconds if sign == b"-" else microseconds
        )
    except ValueError:
        return data.decode()


def interval_binary(data: bytes) -> Any:
    if len(data) != _INTERVAL.size:
        raise size_error("interval", _INTERVAL.size, data)
    microseconds, days, months = _INTERVAL.unpack(data)
    word = _INTERVAL_WORDS.get((microseconds, days, months))
    return Interval(months, days, microseconds) if word is None else word
