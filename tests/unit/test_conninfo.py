"""Connection strings: read as libpq reads them, or refused without a word of what they held."""

from __future__ import annotations

import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.errors import UsageError
from pgrepl.secret import Secret
from pgrepl.transport.conninfo import ConnectionParameters, resolve

KEYWORDS = (
    "host",
    "port",
    "user",
    "password",
    "dbname",
    "sslmode",
    "sslrootcert",
    "connect_timeout",
    "application_name",
    "options",
)


@pytest.fixture(autouse=True, scope="module")
def no_variables() -> Any:
    """A run must not depend on who runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("PG") and not name.startswith("PGREPL"):
                patch.delenv(name)
        yield


def told(parameters: ConnectionParameters) -> dict[str, str]:
    """The parameters as keywords and texts; those that nobody gave have their defaults."""
    values = {
        name: getattr(parameters, name)
        for name in KEYWORDS
        if getattr(parameters, name) is not None
    }
    if parameters.password is not None:
        values["password"] = parameters.password.reveal()
    if parameters.connect_timeout is not None:
        values["connect_timeout"] = int(parameters.connect_timeout)
    return {name: str(value) for name, value in values.items()}


def given_by(conninfo: str) -> dict[str, str]:
    """What a conninfo says, as it is understood here: what differs from an empty one."""
    nothing = told(resolve("", {}))
    return {k: v for k, v in told(resolve(conninfo, {})).items() if nothing.get(k) != v}


GOOD = {
    "": {},
    "   \n\t": {},
    "host=a": {"host": "a"},
    "host=a port=5433 user=u dbname=d": {"host": "a", "port": "5433", "user": "u", "dbname": "d"},
    "host = a   port\t=\n5433": {"host": "a", "port": "5433"},
    "host=a\fport=5433\vuser=u\rdbname=d": {
        "host": "a",
        "port": "5433",
        "user": "u",
        "dbname": "d",
    },
    "user= dbname=x": {"user": "dbname=x", "dbname": "dbname=x"},
    "host=a host=b": {"host": "b"},
    "password='a b'": {"password": "a b"},
    "password=''": {},
    r"password='a\'b\\c'": {"password": r"a'b\c"},
    r"password=a\ b\'c\\d": {"password": r"a b'c\d"},
    r"password='a\bc'": {"password": "abc"},
    "password=abc\\": {"password": "abc"},
    "password=a'b'": {"password": "a'b'"},
    "password=a=b": {"password": "a=b"},
    "password='a\nb'": {"password": "a\nb"},
    "host='a'port=5433": {"host": "a", "port": "5433"},
    "password=p\xa0q\x1cr\u2003s": {"password": "p\xa0q\x1cr\u2003s"},  # white space to Python
    "application_name='a app' options='-c a=b' sslmode=require": {
        "application_name": "a app",
        "options": "-c a=b",
        "sslmode": "require",
    },
    "connect_timeout=10 sslrootcert=/a/b": {"connect_timeout": "10", "sslrootcert": "/a/b"},
    "host=/tmp/x": {"host": "/tmp/x"},
    "host=::1 port=5433": {"host": "::1", "port": "5433"},
    "postgresql://": {},
    "postgres://h": {"host": "h"},
    "postgresql://h:5433/d": {"host": "h", "port": "5433", "dbname": "d"},
    "postgresql://u@h": {"user": "u", "host": "h", "dbname": "u"},
    "postgresql://u:p@h/d": {"user": "u", "password": "p", "host": "h", "dbname": "d"},
    "postgresql://u:p:q?r#s@h/d": {"user": "u", "password": "p:q?r#s", "host": "h", "dbname": "d"},
    "postgresql://u:@h/d": {"user": "u", "host": "h", "dbname": "d"},
    "postgresql://:p@h/d": {"password": "p", "host": "h", "dbname": "d"},
    "postgresql://@h": {"host": "h"},
    "postgresql:///d": {"dbname": "d"},
    "postgresql://u@/d?host=/tmp/x": {"user": "u", "dbname": "d", "host": "/tmp/x"},
    "postgresql://%2Ftmp%2Fx/d": {"host": "/tmp/x", "dbname": "d"},
    "postgresql://[::1]:5433/d": {"host": "::1", "port": "5433", "dbname": "d"},
    "postgresql://[fe80::1%25eth0]/d": {"host": "fe80::1%eth0", "dbname": "d"},
    "postgresql://]": {"host": "]"},
    "postgresql://%5Bh%5D": {"host": "[h]"},
    "postgresql://h:/d": {"host": "h", "dbname": "d"},
    "postgresql://h/": {"host": "h"},
    "postgresql://h?": {"host": "h"},
    "postgresql://h/a/b%2Fc": {"host": "h", "dbname": "a/b/c"},
    "postgresql://%68:%35433/%64?%75ser=%75": {
        "host": "h",
        "port": "5433",
        "dbname": "d",
        "user": "u",
    },
    "postgresql://u:%40%3A%2F%3f%25%20+@h/d": {
        "user": "u",
        "password": "@:/?% +",
        "host": "h",
        "dbname": "d",
    },
    "postgresql://u:%C3%A9é@h/d": {"user": "u", "password": "éé", "host": "h", "dbname": "d"},
    "postgresql://a/b?host=c&dbname=d&port=5433&user=u": {
        "host": "c",
        "dbname": "d",
        "port": "5433",
        "user": "u",
    },
    "postgresql://h?application_name=a&application_name=b&": {
        "host": "h",
        "application_name": "b",
    },
    "postgresql://h/d?options=-c%20a%3Db": {"host": "h", "dbname": "d", "options": "-c a=b"},
    "postgresql:// h /d ": {"host": "h", "dbname": "d"},
}

BAD = [
    "host",
    "host=a port",
    "=a",
    " = a",
    "host='a",
    "host='a\\'",
    "password='a'b",
    "password='a' b",
    "a'b=c",
    "host=a;port=5433 x",
    "POSTGRESQL://h",
    "postgresql:/h",
    "mysql://h/d",
    "postgresql://[::1",
    "postgresql://[::1]x",
    "postgresql://[]/d",
    "postgresql://[/d",
    "postgresql://h?host",
    "postgresql://h?host==a",
    "postgresql://h?host=a=b",
    "postgresql://h?=a",
    "postgresql://h?&",
    "postgresql://h?a=b",
    "postgresql://h?host=a&&port=1",
    "postgresql://u:%4@h",
    "postgresql://u:%@h",
    "postgresql://u:%zz@h",
    "postgresql://u:a%00b@h",
    "postgresql://u:a b@h",
    "postgresql://h/a b",
    "postgresql://h?application_name=a b",
    "postgresql://u:%ff@h",  # no UTF-8; libpq takes it, psycopg does not
    "nonsense=1",
    "HOST=a",
]

# libpq takes these, and each may be a password that was not percent-encoded, or more than we do.
OURS = [
    "postgresql://h/d@e",
    "postgresql://u:p@h@i/d",
    "postgresql://@@h",
    "postgresql://a,b/d",
    "postgresql://a:1,b:2/d",
    "host=a,b",
    "postgresql://h?ssl=true",
    "sslmode=allow",
]


@pytest.mark.parametrize(("conninfo", "expected"), GOOD.items(), ids=map(repr, GOOD))
def test_what_a_conninfo_says(conninfo: str, expected: dict[str, str]) -> None:
    said = given_by(conninfo)
    if "user" in expected and "dbname" not in expected:
        said.pop("dbname")  # it is the user's name then
    assert said == {k: v for k, v in expected.items() if v != told(resolve("", {})).get(k)}


@pytest.mark.parametrize("conninfo", [*BAD, *OURS])
def test_what_no_conninfo_says(conninfo: str) -> None:
    with pytest.raises(UsageError, match="expected|not supported"):
        resolve(conninfo, {})


def libpq(conninfo: str) -> dict[str, str] | None:
    """What libpq says that a conninfo says; None where it refuses it."""
    psycopg = pytest.importorskip("psycopg")
    parse = importlib.import_module("psycopg.conninfo").conninfo_to_dict
    try:
        return {name: str(value) for name, value in parse(conninfo).items() if value != ""}
    except (psycopg.ProgrammingError, UnicodeDecodeError):
        return None


@pytest.mark.parametrize("conninfo", [*GOOD, *BAD])
def test_libpq_is_of_the_same_opinion(conninfo: str) -> None:
    theirs = libpq(conninfo)
    assert (theirs is not None) == (conninfo in GOOD)
    if theirs is not None:
        ours = told(resolve(conninfo, {}))
        assert {name: ours[name] for name in theirs} == theirs


@pytest.mark.parametrize("conninfo", OURS)
def test_libpq_is_more_generous(conninfo: str) -> None:
    assert libpq(conninfo) is not None


PIECES = st.lists(
    st.one_of(
        st.sampled_from(["host", "user", "password", "dbname", "application_name", "port", "ssl"]),
        st.sampled_from(["=", "'", "\\", " ", "\t", "\n", "@", ":", "/", "?", "&", "%", "[", "]"]),
        st.sampled_from(["a", "5", "%20", "%4", "::1", "''", "\\'", "\xa0", "é", "#", ",", "="]),
    ),
    max_size=14,
).map("".join)


@given(st.sampled_from(["", "postgresql://", "postgres://"]), PIECES)
def test_whatever_is_understood_is_understood_as_libpq_does(prefix: str, rest: str) -> None:
    theirs = libpq(prefix + rest)
    try:
        parameters = resolve(prefix + rest, {})
    except UsageError:
        return
    assert theirs is not None
    ours = told(parameters)
    assert {name: ours[name] for name in theirs} == theirs


VALUES = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20
)


@given(user=VALUES, password=VALUES, dbname=VALUES, application_name=VALUES)
def test_every_text_can_be_said_in_each_form(**values: str) -> None:
    def quoted(value: str) -> str:
        return "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"

    def escaped(value: str) -> str:
        return "".join("\\" + c for c in value)

    def encoded(name: str) -> str:
        return quote(values[name], safe="")

    forms = [
        " ".join(f"{name}={quoted(value)}" for name, value in values.items()),
        " ".join(f"{name} = {escaped(value)}" for name, value in values.items()),
        f"postgresql://{encoded('user')}:{encoded('password')}@/{encoded('dbname')}"
        f"?application_name={encoded('application_name')}",
        "postgresql://?" + "&".join(f"{name}={encoded(name)}" for name in values),
    ]
    for each in [*(resolve(form, {}) for form in forms), resolve("", values)]:
        said = told(each)
        assert {name: said[name] for name in values} == values


# What is known, and what is not


@pytest.mark.parametrize(
    "keyword",
    ["hostaddr", "service", "passfile", "sslcert", "sslkey", "channel_binding", "gssencmode"]
    + ["target_session_attrs", "replication", "require_auth", "sslnegotiation", "client_encoding"],
)
def test_a_keyword_of_libpq_that_is_not_supported_is_named(keyword: str) -> None:
    for conninfo, keywords in ((f"{keyword}=x", {}), ("", {keyword: "x"})):
        with pytest.raises(UsageError) as caught:
            resolve(conninfo, keywords)
        assert f"the connection option {keyword} is not supported" in str(caught.value)
        assert all(each in str(caught.value) for each in KEYWORDS)


def test_every_keyword_of_libpq_is_known_by_name() -> None:
    psycopg = pytest.importorskip("psycopg")
    names = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
    # Of old versions, and without any effect in those that still have them.
    for name in names - {"authtype", "tty", "sslkeylogfile", "servicefile", "oauth_ca_file"}:
        try:
            resolve("", {name: "1"})
        except UsageError as error:
            assert name in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("pasword", "did you mean password?"),
        ("database", "supported: host, port"),
        ("hots", "did you mean host?"),
        ("Zq7Xk9Wv3", "supported: host, port"),
    ],
)
def test_an_unknown_keyword_is_not_repeated(word: str, hint: str) -> None:
    for conninfo, keywords in (
        (f"{word}=x", {}),
        (f"postgresql://h?{word}=x", {}),
        ("", {word: 1}),
    ):
        with pytest.raises(UsageError) as caught:
            resolve(conninfo, keywords)
        assert hint in str(caught.value)
        assert word not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"port": "0"}, "integer between 1 and 65535 for port"),
        ({"port": 65536}, "integer between 1 and 65535 for port"),
        ({"port": "5432x"}, "integer between 1 and 65535 for port"),
        ({"port": "\u0665"}, "integer between 1 and 65535 for port"),
        ({"port": "1e3"}, "integer between 1 and 65535 for port"),
        ({"connect_timeout": "soon"}, "for connect_timeout"),
        ({"connect_timeout": "1.5"}, "for connect_timeout"),
        ({"connect_timeout": 2**31}, "for connect_timeout"),
        ({"sslmode": "on"}, "expected sslmode disable, prefer"),
        ({"sslmode": "allow"}, "allow, which pgrepl does not support"),
        ({"sslrootcert": "system", "sslmode": "require"}, "verify-full with sslrootcert=system"),
        ({"user": "a\0b"}, "without zero bytes for user"),
        ({"password": "a\0b"}, "without zero bytes for password"),
        ({"user": "\ud800"}, "UTF-8 can say for user"),
        ({"password": "x\udfffy\ud83d"}, "UTF-8 can say for password"),
    ],
)
def test_a_value_that_makes_no_sense(keywords: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("", keywords)
    assert words in str(caught.value)


@pytest.mark.parametrize("conninfo", [None, b"host=a", 5, Path("a")])
def test_a_conninfo_is_text(conninfo: Any) -> None:
    with pytest.raises(UsageError, match="expected the conninfo as a str, got "):
        resolve(conninfo, {})


def test_a_replication_that_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="expected replication='database' or 'physical', got 'yes"):
        resolve("", {}, replication="yes")


# Where values come from


def test_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "USER", "DATABASE", "PASSWORD", "SSLMODE"):
        monkeypatch.setenv(f"PG{name}", "prefer" if name == "SSLMODE" else "environment")
    monkeypatch.setenv("PGPORT", "1111")
    everywhere = told(resolve("host=string port=2222", {"host": "argument"}))
    assert everywhere["host"] == "argument"
    assert everywhere["port"] == "2222"
    assert everywhere["user"] == everywhere["dbname"] == everywhere["password"] == "environment"
    assert told(resolve("postgresql://u@string/d", {"port": 3333}))["port"] == "3333"
    assert told(resolve("", {"host": None, "password": None}))["host"] == "environment"


def test_what_is_given_as_empty_hides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGHOST", "PGUSER", "PGDATABASE", "PGPASSWORD"):
        monkeypatch.setenv(name, "environment")
    said = told(resolve("host='' user='' dbname='' password=''", {}))
    assert "environment" not in said.values()
    assert "password" not in said


def test_defaults() -> None:
    parameters = resolve("", {"user": "ann"})
    assert (parameters.port, parameters.dbname, parameters.sslmode) == (5432, "ann", "prefer")
    assert (parameters.password, parameters.sslrootcert) == (None, None)
    assert (parameters.connect_timeout, parameters.options) == (None, None)
    assert parameters.application_name == "pgrepl"
    assert parameters.is_unix_socket or os.name == "nt"
    assert resolve("sslrootcert=system", {}).sslmode == "verify-full"
    assert resolve("connect_timeout=0", {}).connect_timeout is None
    assert resolve("connect_timeout=-5", {}).connect_timeout is None
    assert resolve("connect_timeout=' 7 '", {}).connect_timeout == 7.0


@pytest.mark.skipif(os.name == "nt", reason="Windows asks its own way who this is")
def test_a_process_whose_user_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def nobody(uid: int) -> None:
        raise KeyError(f"uid not found: {uid}")

    monkeypatch.setattr(pwd, "getpwuid", nobody)
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match="pass user="):
        resolve("password=Zq7Xk9", {})
    assert resolve("user=ann", {}).user == "ann"


# What becomes of them


def test_the_startup_parameters() -> None:
    asked = {"host": "h", "user": "u", "password": "p", "dbname": "d"}
    logical = resolve("options='-c a=b' application_name=app", asked).startup_parameters()
    assert (logical["user"], logical["database"], logical["replication"]) == ("u", "d", "database")
    assert (logical["options"], logical["application_name"]) == ("-c a=b", "app")
    assert logical["client_encoding"] == "UTF8"
    physical = resolve("", asked, replication="physical").startup_parameters()
    assert physical["replication"] == "true"
    assert "database" not in physical
    assert "options" not in physical
    assert "p" not in {*logical.values(), *physical.values()}


@pytest.mark.parametrize(
    ("host", "where"),
    [
        ("h", "h:5433"),
        ("::1", "[::1]:5433"),
        ("/tmp/x", "the socket /tmp/x/.s.PGSQL.5433"),
    ],
)
def test_an_address_as_people_write_it(host: str, where: str) -> None:
    assert resolve("", {"host": host, "port": 5433}).where == where


# What is never said

SPECIAL = "/@:?#&%[], '\\;+"


@given(
    st.lists(st.sampled_from(["Zq7", "Xk9", "Wv3", "12", *SPECIAL]), min_size=1, max_size=8).map(
        "".join
    )
)
def test_a_password_that_was_not_quoted_shows_nowhere(password: str) -> None:
    for conninfo in (
        f"postgresql://user:{password}@host/db",
        f"postgresql://user:{password}@host:5432/db?application_name=x",
        f"postgresql://:{password}@/",
        f"password={password} host=host user=user dbname=db",
        f"host=host user=user dbname=db password={password}",
        f"password='{password}' host=host user=user dbname=db",
        f"port={password} host=host user=user dbname=db",
        f"sslmode={password} connect_timeout={password} host=host user=user dbname=db",
    ):
        try:
            shown = repr(resolve(conninfo, {}))
        except UsageError as error:
            shown = repr(error) + str(error)
            assert error.__cause__ is None
        assert not any(piece in shown for piece in ("Zq7", "Xk9", "Wv3"))


def test_parameters_do_not_show_the_password() -> None:
    parameters = resolve("password=Zq7Xk9 user=ann host=h", {})
    assert isinstance(parameters.password, Secret)
    assert parameters.password.reveal() == "Zq7Xk9"
    assert "password=***" in repr(parameters)
    assert "Zq7Xk9" not in f"{parameters!r} {dataclasses.fields(parameters)}"
