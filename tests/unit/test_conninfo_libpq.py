"""A conninfo means here what it means to libpq: the same, or both refuse it.

libpq is the one that comes with psycopg, asked without a server. What it does not know yet, and
what is deliberately another way, is listed.
"""

from __future__ import annotations

import re
import socket
import string
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrepl.conninfo import parse, resolve
from pgrepl.conninfo.keywords import KEYWORDS
from pgrepl.errors import UsageError
from tests.support.conninfos import BAD, GOOD

pytest.importorskip("psycopg")
from tests.support import libpq  # noqa: E402

EXAMPLES = 300

pytestmark = pytest.mark.usefixtures("surroundings")


def ours(conninfo: str) -> dict[str, str] | None:
    try:
        return parse(conninfo)
    except UsageError:
        return None


# The keywords


def test_the_version_of_libpq_is_one_that_is_known() -> None:
    """The lists here are of 18 and 19: a later version may have more to say."""
    assert 14_00_00 <= libpq.VERSION < 20_00_00


# By the version that brought them: an older libpq refuses what it does not know.
NEWER = {
    16_00_00: {"gssdelegation", "load_balance_hosts", "require_auth", "sslcertmode"},
    17_00_00: {"sslnegotiation"},
    18_00_00: {
        "min_protocol_version",
        "max_protocol_version",
        "oauth_client_id",
        "oauth_client_secret",
        "oauth_issuer",
        "oauth_scope",
        "scram_client_key",
        "scram_server_key",
        "sslkeylogfile",
    },
    19_00_00: {"oauth_ca_file", "servicefile"},
}
UNKNOWN_TO_LIBPQ = {name for name, each in KEYWORDS.items() if each.origin == "pgrepl"}.union(
    *(names for version, names in NEWER.items() if version > libpq.VERSION)
)
# The first depends on how libpq was built, the others are not in its table.
OWN_DEFAULTS = {"gssencmode", "keepalives", "sslcertmode"}


def test_the_keywords_are_libpqs() -> None:
    assert set(libpq.defaults()) == set(KEYWORDS) - UNKNOWN_TO_LIBPQ
    assert {each for names in NEWER.values() for each in names} <= set(KEYWORDS)
    for name in UNKNOWN_TO_LIBPQ:
        assert libpq.parsed(f"{name}=1") is None
        assert ours(f"{name}=1") == ours(f"postgresql://?{name}=1") == {name: "1"}


@pytest.mark.parametrize("name", sorted(set(KEYWORDS) - UNKNOWN_TO_LIBPQ))
def test_a_keyword_has_libpqs_variable_and_default(name: str) -> None:
    variable, default = libpq.defaults()[name]
    assert KEYWORDS[name].variable == variable
    if name not in OWN_DEFAULTS:
        assert KEYWORDS[name].default == default


# The grammar


def test_the_corners_of_the_grammar() -> None:
    """libpq says what test_conninfo_grammar.py, whose table it is, wants of us."""
    assert {conninfo: libpq.parsed(conninfo) for conninfo in GOOD} == GOOD
    assert [conninfo for conninfo in BAD if libpq.parsed(conninfo) is not None] == []


KNOWN = sorted(set(KEYWORDS) - UNKNOWN_TO_LIBPQ)
PIECES = st.one_of(
    st.sampled_from([*KNOWN, "requiressl", "ssl", "true", "nonsense", "HOST"]),
    st.sampled_from("=' \\\t\n\v@:/?&%[]"),
    st.sampled_from(["a", "5", "%20", "%4", "%00", "%ff", "%c3%a9", "::1", "''", "\\'", ",", "#"]),
    st.sampled_from(["\xa0", "é", "\u2003", "😀", "\x1c", "\x7f", "+", "-", "=", ","]),
)
PREFIXES = st.sampled_from(["", "postgresql://", "postgres://"])


@settings(max_examples=EXAMPLES)
@given(PREFIXES, st.lists(PIECES, max_size=16).map("".join))
def test_whatever_is_put_together(prefix: str, rest: str) -> None:
    assert ours(prefix + rest) == libpq.parsed(prefix + rest)


PLAIN = st.text(st.sampled_from("ab5:/@%,=é\xa0\u2003\\"), max_size=6)
ANY = st.text(st.sampled_from("ab '\\\t\n\v=\xa0😀"), max_size=6)
SPACES = st.sampled_from([" ", "\n", " \t\v\f\r ", "  "])


@st.composite
def pairs(draw: st.DrawFn) -> str:
    """What keyword=value can say, in any of its ways; now and then a keyword that is none."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        name = draw(st.sampled_from([*KNOWN, "requiressl", *KNOWN, "ssl"]))
        around = draw(st.sampled_from(["=", " =", "= ", "\v=\n"]))
        plain, value = draw(PLAIN), draw(ANY)
        quoted = "'" + value.replace("\\", r"\\").replace("'", r"\'") + "'"
        escaped = "".join("\\" + character for character in value)
        found.append(name + around + draw(st.sampled_from([plain, quoted, escaped, quoted])))
    return draw(SPACES).join(found)


@settings(max_examples=EXAMPLES)
@given(pairs())
def test_whatever_pairs_say(conninfo: str) -> None:
    assert ours(conninfo) == libpq.parsed(conninfo)


@st.composite
def mutations(draw: st.DrawFn) -> str:
    """A conninfo from the tables, with some characters lost, doubled, changed or exchanged; a URI
    stays one, as a rule."""
    whole = draw(st.sampled_from([*GOOD, *BAD]))
    text = list(whole)
    first = whole.find("//") + 2 if "://" in whole and draw(st.integers(0, 9)) else 0
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(min(first, len(text)), len(text)))
        change = draw(st.sampled_from(["lose", "put", "double", "swap"]))
        if change == "put":
            text[at:at] = draw(st.one_of(PIECES, st.sampled_from(string.printable)))
        elif change == "lose":
            del text[at : at + draw(st.integers(1, 3))]
        elif change == "double":
            text[at:at] = text[at : at + draw(st.integers(1, 8))]
        else:
            text[at : at + 2] = reversed(text[at : at + 2])
    return "".join(text).replace("\0", "")


@settings(max_examples=EXAMPLES)
@given(mutations())
def test_whatever_is_nearly_right(conninfo: str) -> None:
    assert ours(conninfo) == libpq.parsed(conninfo)


WORDS = st.text(st.sampled_from("ab5%20,:é'\\ =&@/?[]"), max_size=6)


@st.composite
def uris(draw: st.DrawFn) -> str:
    """A URI whose parts are there or not, and hold nearly anything."""
    hosts = draw(st.lists(st.tuples(WORDS, st.sampled_from(["", ":", ":5", ":x"])), max_size=3))
    parts = [
        draw(st.sampled_from(["postgresql://", "postgres://"])),
        draw(st.sampled_from(["", "{}@", "{}:{}@", ":{}@"])).format(draw(WORDS), draw(WORDS)),
        ",".join(f"[{h}]{p}" if draw(st.booleans()) else h + p for h, p in hosts),
        draw(st.sampled_from(["", "/", "/{}"])).format(draw(WORDS)),
        draw(st.sampled_from(["", "?", "?{}={}", "?{}={}&", "?{}={}&user=u"])).format(
            draw(st.sampled_from(KNOWN)), draw(WORDS)
        ),
    ]
    return "".join(parts)


@settings(max_examples=EXAMPLES)
@given(uris())
def test_whatever_looks_like_a_uri(conninfo: str) -> None:
    assert ours(conninfo) == libpq.parsed(conninfo)


# The values

WORDS_FOR = {
    "sslmode": "disable allow prefer require verify-ca verify-full '' REQUIRE on 1 require,",
    "sslnegotiation": "postgres '' Direct 1",
    "channel_binding": "disable prefer require '' Require 0",
    "sslcertmode": "disable allow '' Allow 1",
    "gssencmode": "disable prefer '' Prefer 1",
    "target_session_attrs": "any read-write read-only primary standby prefer-standby '' master ANY",
    "load_balance_hosts": "disable random '' Random 1 on",
    "min_protocol_version": "3.0 3.2 latest '' 3 3.1 3.00 Latest 3.9999",
    "max_protocol_version": "3.0 3.2 latest '' 3 3.1 3.00 Latest 2.0",
    "ssl_min_protocol_version": "TLSv1 TLSv1.1 TLSv1.2 TLSv1.3 tlsV1.2 '' TLSv1.4 1.2 SSLv3",
    "ssl_max_protocol_version": "TLSv1.2 TLSv1.3 tlsV1.3 '' TLSv1.1 TLSv1 TLSv2 all",
    "require_auth": "password md5 gss sspi scram-sha-256 none '' ! , md5, ,md5 md5,md5 !md5,!md5 "
    "!none,!none none,none md5,none !md5,none md5,!none !md5,!none MD5 'md5, none' scram !!md5",
    "connect_timeout": "0 1 -1 +7 007 2147483647 2147483648 -2147483648 '' x 1.5 1s 1e3 0x10 '1 2'",
    "keepalives": "0 1 2 -1 ' 1 ' '' x on 1x",
    "keepalives_idle": "0 1 -1 ' 1\t' '' x 99999999999",
    "keepalives_interval": "0 5 '' x 1.0",
    "keepalives_count": "0 5 '' x 1_0",
    "tcp_user_timeout": "0 5 -5 '' x ٣",
    "port": "1 5432 65535 '' ' 5 ' +5 0005 0 65536 -1 x 5432x 0x10 1.0 5,6 , '5 5'",
    "client_encoding": "UTF8 UTF-8 utf_8 Unicode auto ''",
    "application_name": "a '' 'a b' é",
    "krbsrvname": "a ''",
    "service": "'' nonsense",
    "scram_client_key": "'' x AAAA AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "sslsni": "0 1",
    "sslcompression": "0 ''",
    "requirepeer": "'' nobody",
}


def texts(values: str) -> list[str]:
    """The values in a line of the table; those with spaces, or none, are in quotes."""
    return re.findall(r"'[^']*'|[^ ']+", values)


VALUES = [
    f"{name}={value}"
    for name, values in WORDS_FOR.items()
    if name not in UNKNOWN_TO_LIBPQ
    for value in texts(values)
]
COMBINATIONS = [
    "sslrootcert=system",
    "sslrootcert=system sslmode=verify-full",
    "sslrootcert=system sslmode=verify-ca",
    "sslrootcert=system sslmode=prefer",
    "sslrootcert=system requiressl=1",
    "sslrootcert='' sslmode=require",
    *(
        f"sslnegotiation=direct sslmode={mode}"
        for mode in ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
        if "sslnegotiation" not in UNKNOWN_TO_LIBPQ
    ),
    "ssl_min_protocol_version=TLSv1.3 ssl_max_protocol_version=TLSv1.2",
    "ssl_min_protocol_version=TLSv1.2 ssl_max_protocol_version=TLSv1.2",
    "ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1",
    "ssl_min_protocol_version=TLSv1.1 ssl_max_protocol_version=TLSv1",
    *(
        f"min_protocol_version={low} max_protocol_version={high}"
        for low in ("3.0", "3.2", "latest")
        for high in ("3.0", "3.2", "latest")
        if "min_protocol_version" not in UNKNOWN_TO_LIBPQ
    ),
    "host=,",
    "host=/a,/b port=1",
    "host=/a,/b port=1,",
    "host=/a,/b port=1,2,3",
    "host=/a hostaddr=127.0.0.1",
    "hostaddr=127.0.0.1 port=1,1",
    "hostaddr=127.0.0.1,127.0.0.1 host=a",
    "hostaddr=127.0.0.1 host=a,b",
    "hostaddr='' host=/a,/b port=''",
    "hostaddr=127.0.0.1,127.0.0.1 host=, port=1",
    "host=/a,/b port=1,x",
    "host=/a,/b port=0,1",
    "host=/a,/b port=1,65536",
]


@pytest.mark.parametrize("conninfo", [*VALUES, *COMBINATIONS])
def test_a_value_makes_sense_to_both_or_to_none(conninfo: str) -> None:
    where = "host=127.0.0.1 port=1 user=u "
    if conninfo.startswith(("host", "port")):
        where = "host=/nonexistent user=u "
    theirs = libpq.opinion(where + conninfo, waits=True)
    try:
        resolve(where + conninfo, {})
    except UsageError as error:
        assert theirs.refused is not None, error
    else:
        assert theirs.refused is None


@settings(max_examples=EXAMPLES)
@given(st.text(st.sampled_from(" \t\v0157+-x_.\xa0"), max_size=8))
def test_what_is_an_integer(text: str) -> None:
    conninfo = f"host=/nonexistent user=u port='{text}'"
    theirs = libpq.opinion(conninfo)
    try:
        port = resolve(conninfo, {}).hosts[0].port
    except UsageError:
        assert theirs.refused is not None
    else:
        assert theirs.refused is None
        assert port == int(text.strip(" \t\v") or "5432")


LISTS = st.lists(st.sampled_from(["/nonexistent", "@nonexistent", ""]), max_size=4)
PORTS = st.lists(st.sampled_from(["", "1", "65535"]), max_size=4)


@given(LISTS, st.lists(st.sampled_from(["", "127.0.0.1"]), max_size=4), PORTS)
def test_lists_fit_each_other(hosts: list[str], addresses: list[str], ports: list[str]) -> None:
    host, hostaddr, port = (",".join(each) for each in (hosts, addresses, ports))
    conninfo = f"user=u host='{host}' hostaddr='{hostaddr}' port='{port}'"
    theirs = libpq.opinion(conninfo)
    try:
        found = resolve(conninfo, {}).hosts
    except UsageError as error:
        assert "could not match" in str(error)
        # The same sentence, with the same numbers.
        assert str(theirs.refused) in str(error)
    else:
        assert theirs.refused is None
        assert len(found) == len(addresses if hostaddr else hosts if host else [""])


# Variables


VARIABLES = {
    variable: texts(values)
    for name, values in WORDS_FOR.items()
    if (variable := KEYWORDS[name].variable) is not None and name not in UNKNOWN_TO_LIBPQ
    # libpq looks at it only when it waits.
    if name != "connect_timeout"
}
# An empty one is the default here, and none at all in libpq; that shows where the highest version
# is below the default, which is refused here.
VARIABLES["PGSSLMINPROTOCOLVERSION"] = [
    word for word in VARIABLES["PGSSLMINPROTOCOLVERSION"] if word.strip("'")
]
# The first of a line makes sense.
NUMBERS = st.one_of(st.just(0), st.just(0), st.just(0), st.integers(0, 20))
ENVIRONMENTS = st.dictionaries(st.sampled_from(sorted(VARIABLES)), NUMBERS, max_size=4)
CHECKED_AT_ONCE = [each for each in VALUES if not re.match("connect_t|keepalives|tcp_user_", each)]
FIRST = [f"{name}={texts(values)[0]}" for name, values in WORDS_FOR.items()]
FIRST = [each for each in FIRST if each in CHECKED_AT_ONCE]


@settings(max_examples=EXAMPLES)
@given(ENVIRONMENTS, st.sampled_from(CHECKED_AT_ONCE) | st.sampled_from(FIRST))
def test_variables_and_a_conninfo_go_together(chosen: dict[str, int], conninfo: str) -> None:
    conninfo = f"host=/nonexistent user=u {conninfo}"
    with pytest.MonkeyPatch.context() as patch:
        for name, number in chosen.items():
            words = VARIABLES[name]
            patch.setenv(name, words[number % len(words)].strip("'"))
        theirs = libpq.opinion(conninfo)
        try:
            ours = resolve(conninfo, {})
        except UsageError as error:
            assert theirs.refused is not None, error
            return
    assert theirs.refused is None
    assert ours.hosts[0].port == int(theirs.values["port"] or "5432")
    for where, name in (
        (ours, "application_name"),
        (ours, "target_session_attrs"),
        (ours.tls, "sslmode"),
        (ours.tls, "sslnegotiation"),
        (ours.tls, "sslcertmode"),
        (ours.authentication, "channel_binding"),
    ):
        found = getattr(where, name)
        assert found == theirs.values.get(name, "pgrepl" if name == "application_name" else found)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="Python has no Unix sockets here")
@pytest.mark.parametrize(
    ("variables", "conninfo"),
    [
        ({}, ""),
        ({}, "dbname=d replication=database"),
        ({}, "replication=true"),
        ({}, "replication=on dbname=d"),
        ({"PGDATABASE": "d"}, "replication=true"),
        ({}, "options='-c a=b' application_name='a b'"),
        ({"PGOPTIONS": "-c a=b", "PGAPPNAME": "é"}, ""),
        ({"PGOPTIONS": "-c a=b"}, "options=''"),
        ({}, "fallback_application_name=f"),
        ({}, "application_name='' fallback_application_name=f"),
        ({"PGAPPNAME": ""}, "fallback_application_name=f"),
        ({"PGAPPNAME": "a"}, "fallback_application_name=f application_name=''"),
        ({"PGTZ": "Asia/Kathmandu", "PGGEQO": "off"}, ""),
        ({"PGTZ": "Default", "PGGEQO": "DEFAULT", "PGDATESTYLE": "default"}, ""),
        ({"PGDATESTYLE": "ISO, DMY"}, "client_encoding=UTF8"),
    ],
)
def test_what_a_server_is_told(
    variables: dict[str, str], conninfo: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with tempfile.TemporaryDirectory() as folder:  # with a short name
        theirs = libpq.startup_parameters(f"user=u {conninfo}", Path(folder))
    ours = resolve(f"host=/nonexistent user=u {conninfo}", {}).startup_parameters()
    for name in ("user", "database", "options", "TimeZone", "geqo"):
        assert ours.get(name) == theirs.get(name.lower()), name
    has_name = "application_name" in conninfo or "PGAPPNAME" in variables
    assert ours.get("application_name") == theirs.get(
        "application_name", None if has_name else "pgrepl"
    )
    # Whatever else it is told is ours, to have values in one form.
    assert ours["client_encoding"] == theirs.get("client_encoding", "UTF8")
    style = "ISO" if ours["replication"] == "database" else None
    assert ours.get("DateStyle") == theirs.get("datestyle", style)


@pytest.mark.parametrize(
    ("variables", "conninfo", "sslmode"),
    [
        ({"PGREQUIRESSL": "1"}, "", "require"),
        ({"PGREQUIRESSL": "10"}, "", "require"),
        ({"PGREQUIRESSL": "0"}, "", "prefer"),
        ({"PGREQUIRESSL": "true"}, "", "prefer"),
        ({"PGREQUIRESSL": "1", "PGSSLMODE": "allow"}, "", "allow"),
        ({"PGREQUIRESSL": "1"}, "sslmode=disable", "disable"),
        ({"PGSSLROOTCERT": "system"}, "", "verify-full"),
        ({"PGSSLROOTCERT": "system", "PGSSLMODE": "require"}, "", None),
        ({"PGSSLROOTCERT": "system", "PGREQUIRESSL": "1"}, "", None),
        ({"PGSSLROOTCERT": "/file"}, "", "prefer"),
        ({"PGSSLMODE": ""}, "", None),
    ],
)
def test_where_an_sslmode_comes_from(
    variables: dict[str, str], conninfo: str, sslmode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    conninfo = f"host=/nonexistent user=u {conninfo}"
    theirs = libpq.opinion(conninfo)
    if sslmode is None:
        assert theirs.refused is not None
        with pytest.raises(UsageError):
            resolve(conninfo, {})
    else:
        assert theirs.values["sslmode"] == sslmode
        assert resolve(conninfo, {}).tls.sslmode == sslmode
