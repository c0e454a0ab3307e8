"""Resume tokens: what they hold, and that their text has one form alone."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgrepl import Lsn
from pgrepl.resume import ResumeToken

TOKEN = ResumeToken("7312345678901234567", 1, Lsn("1/F73E0220"))

tokens = st.builds(
    ResumeToken,
    st.integers(0, 2**64 - 1).map(str),
    st.integers(1, 2**32 - 1),
    st.integers(0, 2**64 - 1).map(Lsn),
    st.integers(0, 2**63 - 1),
)


def test_a_token_as_text() -> None:
    assert str(TOKEN) == "v1.7312345678901234567.1.1-F73E0220"
    assert str(dataclasses.replace(TOKEN, index=5)) == "v1.7312345678901234567.1.1-F73E0220.5"
    assert TOKEN.index == 0


@given(tokens)
@example(ResumeToken("0", 1, Lsn(0)))
@example(ResumeToken(str(2**64 - 1), 2**32 - 1, Lsn(2**64 - 1), 2**63 - 1))
def test_what_is_printed_is_read_back(token: ResumeToken) -> None:
    text = str(token)
    assert ResumeToken.parse(text) == token
    assert quote(text, safe="") == text
    assert type(ResumeToken.parse(text).end_lsn) is Lsn


@given(tokens, tokens)
def test_tokens_are_equal_if_their_texts_are(one: ResumeToken, other: ResumeToken) -> None:
    assert (one == other) == (str(one) == str(other))
    assert len({one, ResumeToken.parse(str(one))}) == 1


@given(
    st.one_of(
        st.text(),
        st.text(alphabet="v10123456789.ABCDEFabcdef-/ \n", max_size=60),
        st.from_regex(
            re.compile(r"v1\.\d+\.\d+\.[0-9A-Fa-f]+-[0-9A-Fa-f]+(\.\d+)?"), fullmatch=True
        ),
    )
)
def test_nothing_else_is_read(text: str) -> None:
    try:
        token = ResumeToken.parse(text)
    except ValueError as error:
        assert str(error).startswith("expected ")
        assert len(str(error)) < 600
    else:
        assert str(token) == text


@given(tokens.map(str), st.data())
def test_a_text_that_lost_or_gained_a_character_is_another(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text)))
    piece = data.draw(st.text(alphabet="v.-0123456789ABCDEFabcdef \n", max_size=2))
    changed = text[:at] + piece + text[at + data.draw(st.integers(0, 1)) :]
    try:
        token = ResumeToken.parse(changed)
    except ValueError:
        assert changed != text
    else:
        assert str(token) == changed


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v1",
        "v2.7312345678901234567.1.1-F73E0220",
        "7312345678901234567.1.1-F73E0220",
        " v1.7312345678901234567.1.1-F73E0220",
        "v1.7312345678901234567.1.1-F73E0220\n",
        "V1.7312345678901234567.1.1-F73E0220",
        "v1.7312345678901234567.1.1/F73E0220",
        "v1.7312345678901234567.1.1-f73e0220",
        "v1.7312345678901234567.1.01-F73E0220",
        "v1.7312345678901234567.1.1-00F73E0220",
        "v1.7312345678901234567.1.1-0F73E022",
        "v1.7312345678901234567.1.-F73E0220",
        "v1.07312345678901234567.1.1-F73E0220",
        "v1.-1.1.1-F73E0220",
        "v1.18446744073709551616.1.1-F73E0220",
        "v1.7312345678901234567.0.1-F73E0220",
        "v1.7312345678901234567.01.1-F73E0220",
        "v1.7312345678901234567.4294967296.1-F73E0220",
        "v1.7312345678901234567.1.1-F73E0220.0",
        "v1.7312345678901234567.1.1-F73E0220.05",
        "v1.7312345678901234567.1.1-F73E0220.9223372036854775808",
        "v1.7312345678901234567.1.1-F73E0220.",
        "v1.7312345678901234567.1.1-F73E0220.1.1",
        "v1.731234567890123456\u0667.1.1-F73E0220",
    ],
)
def test_a_text_that_is_no_token(text: str) -> None:
    with pytest.raises(ValueError, match=r"^expected "):
        ResumeToken.parse(text)


def test_a_text_that_is_no_token_is_not_shown_at_length() -> None:
    with pytest.raises(ValueError, match="got 'xxx") as caught:
        ResumeToken.parse("x" * 10**6)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"systemid": ""}, ValueError, "expected a system identifier"),
        ({"systemid": "x"}, ValueError, "expected a system identifier"),
        ({"systemid": "007"}, ValueError, "expected a system identifier"),
        ({"systemid": "9" * 5000}, ValueError, "expected a system identifier"),
        ({"systemid": "18446744073709551616"}, ValueError, "expected a system identifier"),
        ({"systemid": "1\n"}, ValueError, "expected a system identifier"),
        ({"systemid": "1.1"}, ValueError, "expected a system identifier"),
        ({"systemid": 7}, TypeError, "expected a str for a system identifier, got int"),
        ({"timeline": 0}, ValueError, "timeline between 1 and 4294967295, got 0"),
        ({"timeline": 2**32}, ValueError, "timeline between 1 and 4294967295"),
        ({"timeline": "1"}, TypeError, "expected an int for the token's timeline, got str"),
        ({"index": -1}, ValueError, "index between 0 and 9223372036854775807, got -1"),
        ({"index": 2**63}, ValueError, "index between 0 and 9223372036854775807"),
        ({"index": 0.5}, TypeError, "expected an int for the token's index, got float"),
        ({"end_lsn": -1}, ValueError, "expected an LSN between 0 and 2\\*\\*64-1"),
        ({"end_lsn": 2**64}, ValueError, "expected an LSN between 0 and 2\\*\\*64-1"),
        ({"end_lsn": 1.5}, TypeError, "expected an int or str for an LSN"),
    ],
)
def test_what_no_server_has(change: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        dataclasses.replace(TOKEN, **change)


def test_a_position_becomes_an_lsn() -> None:
    token = ResumeToken("1", 1, 0x1F73E0220)  # type: ignore[arg-type]
    assert token == ResumeToken("1", 1, Lsn("1/F73E0220"))
    assert type(token.end_lsn) is Lsn


def test_tokens_are_values_without_an_order() -> None:
    for twin in (copy.copy(TOKEN), copy.deepcopy(TOKEN), pickle.loads(pickle.dumps(TOKEN))):
        assert (twin, hash(twin)) == (TOKEN, hash(TOKEN))
    with pytest.raises(dataclasses.FrozenInstanceError):
        TOKEN.index = 1  # type: ignore[misc]
    later = dataclasses.replace(TOKEN, end_lsn=Lsn(TOKEN.end_lsn + 1))
    with pytest.raises(TypeError):
        _ = later > TOKEN
