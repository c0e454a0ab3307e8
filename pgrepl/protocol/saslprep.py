"""SASLprep: passwords that look the same become the same.

Law: what comes out is what PostgreSQL makes of the same password, since its server hashed that when
the password was set. PostgreSQL differs from RFC 4013 in two things: a password that SASLprep
refuses, or that is no UTF-8, is taken as it is, and what is refused is looked for before the text
is normalized, not after.

Sources: RFC 4013, RFC 3454; PostgreSQL documentation, "SASL Authentication".
"""

from __future__ import annotations

import stringprep
import unicodedata
from collections.abc import Callable
from typing import Final

from ..errors import UsageError
from ..secret import Secret

__all__ = ["prepared"]

# RFC 4013, section 2.3 and, the last one, 2.5.
_REFUSED: Final[tuple[Callable[[str], bool], ...]] = (
    stringprep.in_table_c12,
    stringprep.in_table_c21_c22,
    stringprep.in_table_c3,
    stringprep.in_table_c4,
    stringprep.in_table_c5,
    stringprep.in_table_c6,
    stringprep.in_table_c7,
    stringprep.in_table_c8,
    stringprep.in_table_c9,
    stringprep.in_table_a1,
)


def prepared(password: Secret) -> bytes:
    """Return a password as SCRAM hashes it. Nobody keeps it in a local variable.

    Raises `UsageError` for one that stands for no bytes, with surrogates that are not
    ``surrogateescape``'s.
    """
    try:
        return _prepared(password.reveal())
    except UnicodeEncodeError:
        pass  # what it says shows the password, and so does where it was raised
    except BaseException as error:
        # Ctrl-C, above all.
        raise error.with_traceback(None) from None
    raise UsageError("expected text that can be encoded for password, got lone surrogates")


def _prepared(text: str) -> bytes:
    if not text.isascii():
        mapped = "".join(map(_mapped, text))
        if mapped and not any(test(c) for c in mapped for test in _REFUSED) and _is_one_way(mapped):
            return unicodedata.normalize("NFKC", mapped).encode()
    return text.encode("utf-8", "surrogateescape")


def _mapped(character: str) -> str:
    """RFC 4013, section 2.1."""
    if stringprep.in_table_c12(character):
        return " "
    return "" if stringprep.in_table_b1(character) else character


def _is_one_way(text: str) -> bool:
    """RFC 3454, section 6: text that is written from the right is so from its first character to
    its last, with nothing in between that is written from the left."""
    if not any(map(stringprep.in_table_d1, text)):
        return True
    ends = stringprep.in_table_d1(text[0]) and stringprep.in_table_d1(text[-1])
    return ends and not any(map(stringprep.in_table_d2, text))
