"""What was given for each keyword, by whom, and whether it makes sense.

A value may be a piece of a password that was not quoted, so no error repeats one: it names the
keyword and who gave it.

Source: PostgreSQL documentation, "Parameter Key Words" (libpq).
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from ..errors import UsageError
from ..secret import Secret
from .keywords import KEYWORDS

__all__ = ["Given", "Values"]

_Word = TypeVar("_Word", bound=str)

_INTEGER: Final = re.compile(r"[ \t\n\r\f\v]*([+-]?)0*([0-9]{1,10})[ \t\n\r\f\v]*")
_MAX_INTEGER: Final = 2**31 - 1
_KEY_LENGTH: Final = 32
_EMPTY: Final = "an empty value; leave it out for the default"


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A value as text, and who gave it: "the conninfo", "PGHOST". `number`: where it was one."""

    text: str
    source: str
    number: float | None = None

    def __repr__(self) -> str:
        return f"<from {self.source}>"


class Values:
    """Everything that was given, by keyword.

    An empty value is a given one: it hides what comes after it, the environment for instance, and
    means the default, or nothing. Where one of several words must stand it is refused, as by libpq.
    """

    def __init__(self, given: Mapping[str, Given]) -> None:
        self._given = given
        for name, value in given.items():
            if "\0" in value.text:
                raise self.refusal(name, "a value without zero bytes", "one inside")
            if not _is_encodable(value.text):
                raise self.refusal(name, "text that UTF-8 can say", "a lone surrogate")
            if (instead := KEYWORDS[name].refusal) and value.text:
                raise UsageError(
                    f"the connection option {name} is not supported by pgrepl: {instead}"
                    f"{self._source(name)}"
                )

    def __contains__(self, name: str) -> bool:
        return name in self._given

    def refusal(self, name: str, expected: str, got: str = "something else") -> UsageError:
        """Return the error for a keyword's value."""
        return UsageError(f"expected {expected} for {name}, got {got}{self._source(name)}")

    def text(self, name: str) -> str:
        """Return the text, or the default, or nothing."""
        given = self._given.get(name)
        return (KEYWORDS[name].default or "") if given is None else given.text

    def optional(self, name: str) -> str | None:
        """Return the text, or None for nothing."""
        return self.text(name) or None

    def secret(self, name: str) -> Secret | None:
        """Return the text as a secret, or None for nothing."""
        return Secret(self.text(name)) if self.text(name) else None

    def word(self, name: str, words: tuple[_Word, ...]) -> _Word:
        """Return which of the words it is."""
        for word in words:
            if word == self.text(name):
                return word
        expected = f"{', '.join(words[:-1])} or {words[-1]}"
        got = "another word" if self.text(name) else _EMPTY
        raise UsageError(f"expected {name} to be {expected}, got {got}{self._source(name)}")

    def flag(self, name: str) -> bool:
        """Return whether it is 1, not 0; an empty one has the default."""
        text = self.text(name) and self.word(name, ("0", "1"))
        return (text or KEYWORDS[name].default) == "1"

    def integer(self, name: str, low: int = -_MAX_INTEGER - 1, high: int = _MAX_INTEGER) -> int:
        """Return the number, white space around it allowed."""
        return self.integer_of(name, self.text(name), low, high)

    def integer_of(self, name: str, text: str, low: int, high: int) -> int:
        """Return the number that is this part of the value."""
        match = _INTEGER.fullmatch(text)
        if match is None or not low <= (number := int(match[1] + match[2])) <= high:
            got = "something else" if text else _EMPTY
            raise self.refusal(name, f"an integer between {low} and {high}", got)
        return number

    def positive(self, name: str) -> int | None:
        """Return the number, None where it was not given or is not above zero."""
        number = self.integer(name) if name in self else 0
        return number if number > 0 else None

    def seconds(self, name: str) -> float | None:
        """Return a time, None where there is no limit."""
        given = self._given.get(name)
        if given is None or given.number is None:
            seconds = self.positive(name)
            return None if seconds is None else float(seconds)
        if math.isnan(given.number):
            raise self.refusal(name, "a number of seconds", "none")
        if math.inf > given.number > _MAX_INTEGER:
            raise self.refusal(name, f"at most {_MAX_INTEGER}")
        return given.number if 0 < given.number < math.inf else None

    def key(self, name: str) -> Secret | None:
        """Return a key of SCRAM, still in base64: 32 bytes."""
        if name not in self:
            return None
        try:
            length = len(base64.b64decode(self.text(name), validate=True))
        except (binascii.Error, ValueError):
            length = None
        if length != _KEY_LENGTH:
            raise self.refusal(name, f"base64 of {_KEY_LENGTH} bytes")
        return Secret(self.text(name))

    def _source(self, name: str) -> str:
        return f" (from {self._given[name].source})" if name in self else ""


def _is_encodable(value: str) -> bool:
    # What Python made of bytes of the environment that are not UTF-8 can be sent as it came.
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True
