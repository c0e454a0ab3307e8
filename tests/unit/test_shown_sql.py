"""Names and values in SQL: quoted for the server, and printable for whoever copies them."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgrepl
from pgrepl.doctor.shown_sql import identifier, literal, qualified

# What a database can hold: no zero bytes and no surrogates.
TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def read_identifier(quoted: str) -> str:
    """What PostgreSQL makes of a quoted name, by its documentation."""
    match = re.fullmatch(r'(U&)?"((?:[^"]|"")*)"', quoted, re.DOTALL)
    assert match is not None
    inner = match[2].replace('""', '"')
    if match[1] is None:
        return inner
    return re.sub(
        r"\\(?:\\|\+([0-9a-f]{6})|([0-9a-f]{4}))",
        lambda escape: chr(int(escape[1] or escape[2], 16)) if escape[0] != r"\\" else "\\",
        inner,
    )


def read_literal(quoted: str) -> str:
    """What PostgreSQL makes of a value, with standard_conforming_strings off as well."""
    match = re.fullmatch(r"(E)?'((?:[^']|'')*)'", quoted, re.DOTALL)
    assert match is not None
    inner = match[2].replace("''", "'")
    if match[1] is None:
        assert "\\" not in inner
        return inner
    named = {"\\": "\\", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
    return re.sub(
        r"\\(?:([\\bfnrt])|x([0-9a-f]{2})|u([0-9a-f]{4})|U([0-9a-f]{8}))",
        lambda escape: named[escape[1]] if escape[1] else chr(int(escape[0][2:], 16)),
        inner,
    )


@given(TEXTS)
def test_v15_what_is_quoted_is_what_was_meant(text: str) -> None:
    assert read_identifier(identifier(text)) == text
    assert read_literal(literal(text)) == text


@given(TEXTS)
def test_what_is_quoted_can_be_shown(text: str) -> None:
    assert identifier(text).isprintable()
    assert literal(text).isprintable()


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("orders", '"orders"'),
        ("select", '"select"'),
        ('a"b', '"a""b"'),
        ("a\\b", '"a\\b"'),
        ("Größe", '"Größe"'),
        ('a\n"\\', r'U&"a\000a""\\"'),
        ("\x1b[2J", r'U&"\001b[2J"'),
        ("\u202e", r'U&"\202e"'),
        ("\U000e0001", r'U&"\+0e0001"'),
    ],
)
def test_v15_identifiers(name: str, shown: str) -> None:
    assert identifier(name) == shown
    assert qualified("public", name) == f'"public".{shown}'


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("it's", "'it''s'"),
        ("a\\'b", r"E'a\\''b'"),
        ("\x1b", r"E'\x1b'"),
        ("\u2028", r"E'\u2028'"),
        ("\U000e0001", r"E'\U000e0001'"),
    ],
)
def test_v15_literals(value: str, shown: str) -> None:
    assert literal(value) == shown


@pytest.mark.parametrize("quote", [identifier, literal])
def test_zero_bytes_are_refused(quote: Any) -> None:
    with pytest.raises(pgrepl.UsageError, match="without zero bytes"):
        quote("a\0b")
