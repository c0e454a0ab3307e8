"""The grammar of a conninfo: read as libpq reads it, or refused without a word of what it held."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.conninfo import parse, resolve
from pgrepl.conninfo.keywords import KEYWORDS
from pgrepl.errors import UsageError
from tests.support.conninfos import BAD, GOOD


@pytest.mark.parametrize(("conninfo", "expected"), GOOD.items(), ids=map(repr, GOOD))
def test_what_a_conninfo_says(conninfo: str, expected: dict[str, str]) -> None:
    assert parse(conninfo) == expected


@pytest.mark.parametrize("conninfo", BAD)
def test_what_no_conninfo_says(conninfo: str) -> None:
    with pytest.raises(UsageError, match="^expected"):
        parse(conninfo)
    with pytest.raises(UsageError, match="^expected"):
        resolve(conninfo, {})


VALUES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(
    st.dictionaries(st.sampled_from(sorted(KEYWORDS)), VALUES, min_size=1, max_size=6),
    st.sampled_from([" ", "\n", "\t\v\f\r "]),
)
def test_every_text_can_be_said_in_each_form(values: dict[str, str], space: str) -> None:
    def quoted(value: str) -> str:
        return "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"

    def escaped(value: str) -> str:
        return "".join("\\" + c for c in value)

    def encoded(value: str) -> str:
        return quote(value, safe="")

    for form in (
        space.join(f"{name}={quoted(value)}" for name, value in values.items()),
        "".join(f"{name}{space}={space}{quoted(value)}" for name, value in values.items()),
        space.join(f"{name} = {escaped(value)}" for name, value in values.items()),
        "postgresql://?" + "&".join(f"{name}={encoded(value)}" for name, value in values.items()),
        "postgres:///?" + "".join(f"{encoded(n)}={encoded(v)}&" for n, v in values.items()),
    ):
        assert parse(form) == values


@given(VALUES, VALUES, VALUES, VALUES)
def test_every_text_can_be_said_in_front_of_the_query(
    user: str, password: str, host: str, dbname: str
) -> None:
    a, b, c, d = (quote(each, safe="") for each in (user, password, host, dbname))
    assert parse(f"postgresql://{a}:{b}@{c}/{d}") == {
        "user": user,
        "password": password,
        "host": host,
        "dbname": dbname,
    }


# Where a mistake is


@pytest.mark.parametrize(
    ("conninfo", "place"),
    [
        ("port", "at character 1 of the conninfo"),
        ("host=a  port", "at character 9 of the conninfo"),
        ("host=a nonsense=1", "at character 8 of the conninfo"),
        ("host=a user = 'x y", "at character 15 of the conninfo"),
        ("host=a\0", "at character 7"),
        ("postgresql://a,[::1", "at character 16 of the URI"),
        ("postgresql://u:%@h", "in the URI's password"),
        ("postgresql://u%:p@h", "in the URI's user"),
        ("postgresql://a,%", "in the URI's host"),
        ("postgresql://a:1%", "in the URI's port"),
        ("postgresql://a/%ff", "in the URI's dbname"),
        ("postgresql://a?user=%ff", "in the URI's user"),
        ("postgresql://a\ud800%20", "in the URI's host, got a lone surrogate"),
        ("postgresql://a?user=u&port", "in part 2 of the URI's query"),
        ("postgresql://a?user=u&port=%", "in the URI's query, part 2"),
        ("postgresql://a?user=u&x=1", "in part 2 of the URI's query"),
    ],
)
def test_the_place_of_a_mistake_is_told(conninfo: str, place: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(conninfo)
    assert place in str(caught.value)


@pytest.mark.parametrize(
    "conninfo",
    [
        "mysql://Zq7/d",
        "POSTGRESQL://Zq7",
        "postgresql:/Zq7",
        " postgresql://Zq7",
        "jdbc:postgresql://Zq7/d",
        "postgresql+psycopg://u:Zq7@h",
        "\nhttps://Zq7 port=1",
    ],
)
def test_a_uri_of_another_kind(conninfo: str) -> None:
    with pytest.raises(UsageError, match="a URI that begins with postgresql://.* kind$") as caught:
        parse(conninfo)
    assert "Zq7" not in str(caught.value)


@pytest.mark.parametrize(
    ("conninfo", "got"),
    [
        ("host=a port", "at character 8 of the conninfo, got a word without '='"),
        ("host=a = 1", "at character 8 of the conninfo, got no keyword"),
        ("host=a mysql://h", "at character 8 of the conninfo, got a word without '='"),
        ("{'host': 'a'}", "at character 1 of the conninfo, got a word without '='"),
    ],
)
def test_what_is_no_pair(conninfo: str, got: str) -> None:
    with pytest.raises(UsageError, match=re.escape(got)):
        parse(conninfo)


@pytest.mark.parametrize(
    "conninfo", ["postgresql://::1/d", "postgresql://fe80::1:5432", "postgres://u:p@h,i:1:2"]
)
def test_an_address_without_square_brackets(conninfo: str) -> None:
    """To libpq, too, what follows the first colon is the port, which makes no sense."""
    assert ":" in parse(conninfo)["port"]
    with pytest.raises(UsageError, match="put an IPv6 address in square brackets"):
        resolve(conninfo, {})


@pytest.mark.parametrize("conninfo", [None, b"host=a", 5, Path("a")])
def test_a_conninfo_is_text(conninfo: Any) -> None:
    for read in (parse, lambda each: resolve(each, {})):
        with pytest.raises(UsageError, match="expected the conninfo as a str, got "):
            read(conninfo)


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("pasword", "'pasword'; did you mean password or "),
        ("databse", "'databse'; did you mean dbname?"),
        ("database", "'database'; did you mean dbname?"),
        ("username", "'username'; did you mean user?"),
        ("sslmin_protocol_version", "did you mean ssl_min_protocol_version or "),
        ("hots", "'hots'; did you mean host?"),
        ("PASSWORD", "'PASSWORD'; did you mean password?"),
        ("Database", "'Database'; did you mean dbname?"),
        ("colour", "'colour'; the keywords are those of libpq"),
    ],
)
def test_an_unknown_keyword_is_named(word: str, hint: str) -> None:
    for conninfo, keywords in (
        (f"{word}=x password=Zq7", {}),
        (f"postgresql://h?{word}=x", {}),
        (f"postgresql://u:p@h/d?application_name=a&{word}=x", {}),
        ("", {word: 1}),
    ):
        with pytest.raises(UsageError) as caught:
            resolve(conninfo, keywords)
        assert hint in str(caught.value)


# A base64 text, of which the padding was taken for an equals sign; what has digits, or is long.
@pytest.mark.parametrize(
    "conninfo",
    ["dGVzdHRlc3Q=", "Zq7Xk9Wv3=x", "zq7=x", "postgresql://u:zq/zq?z=1", "z" * 41 + "=x", "z=x"]
    + ["postgresql://u:zqxkwv?zqxkwv=x"],
)
def test_a_word_that_may_be_anything_is_not_repeated(conninfo: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(conninfo, {})
    assert "got another word; the keywords are those of libpq" in str(caught.value)


@pytest.mark.parametrize(
    "conninfo",
    [
        "password=my pasword=x",
        "user=u sslpassword=a pasword='x'",
        "postgresql://h?password=a&pasword=b",
        "postgresql://u:a/b?pasword=@h/d",
        "postgresql://u:a/@?pasword=h",
    ],
)
def test_a_word_that_may_belong_to_a_password_is_likened_to_nothing(conninfo: str) -> None:
    with pytest.raises(UsageError, match="another word; the keywords are those of libpq"):
        parse(conninfo)


# An '@' that separates nothing


@pytest.mark.parametrize(
    "conninfo",
    [
        "postgresql://h/d@e",
        "postgresql://u:p@h@i/d",
        "postgresql://@@h",
        "postgresql://u:p@[a@b]",
        "postgresql://u:12/w@h/d",
        "postgresql://u:p@a,b@c",
    ],
)
def test_what_is_probably_the_rest_of_a_password_is_read_but_not_connected_to(
    conninfo: str,
) -> None:
    assert "@" in "".join(parse(conninfo).values())
    with pytest.raises(UsageError, match="got an '@' behind the one that ends the password"):
        resolve(conninfo, {})


def test_an_at_sign_that_was_encoded_is_a_character_like_others() -> None:
    parameters = resolve("postgresql://u%40v@%40h/d%40e?application_name=a@b", {})
    assert (parameters.user, parameters.dbname) == ("u@v", "d@e")
    assert parameters.hosts[0].socket_path == "\0h/.s.PGSQL.5432"
    assert parameters.application_name == "a@b"


# What is given back


def test_the_result_is_a_dict_that_hides_passwords() -> None:
    parsed = parse("host=h password=Zq7 sslpassword=Xk9 user=a@Wv3 scram_client_key=Zq7 port=1")
    assert isinstance(parsed, dict)
    assert parsed["password"] == "Zq7"
    assert repr(parsed) == (
        "{'host': 'h', 'password': ***, 'sslpassword': ***, 'user': ***, 'scram_client_key': ***, "
        "'port': '1'}"
    )
    assert repr(parsed) == str(parsed) == f"{parsed}"
    assert repr(parse("host=h port=1")) == "{'host': 'h', 'port': '1'}"


@pytest.mark.parametrize("take", [pickle.dumps, copy.copy, copy.deepcopy])
def test_the_result_is_not_copied_by_accident(take: Any) -> None:
    parsed = parse("password=Zq7 host=h")
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        take(parsed)
    assert "Zq7" not in str(caught.value)
    assert dict(parsed) == parsed == {**parsed}
    assert take(dict(parsed))
