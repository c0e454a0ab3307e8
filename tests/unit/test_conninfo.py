"""What it takes to connect: where values come from, which make sense, and what becomes of them."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.conninfo import ConnectionParameters, parse, resolve
from pgrepl.conninfo.keywords import KEYWORDS
from pgrepl.conninfo.parameters import AUTHENTICATION_METHODS
from pgrepl.errors import UsageError
from pgrepl.secret import Secret

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(32)).decode()
DOCUMENTATION = Path(__file__).parents[2] / "docs" / "connecting.md"

pytestmark = pytest.mark.usefixtures("surroundings")


def plain(value: Any) -> Any:
    return value.reveal() if isinstance(value, Secret) else value


# Where each keyword's value is found, and what it is there. For those that are not simply text: a
# sample and what becomes of it.
SAMPLES: dict[str, tuple[str, Any]] = {
    "user": ("ann", "ann"),
    "dbname": ("shop", "shop"),
    "host": ("h", "h"),
    "hostaddr": ("::1", "::1"),
    "port": (" 5433 ", 5433),
    "password": ("secret", "secret"),
    "connect_timeout": ("7", 7.0),
    "target_session_attrs": ("prefer-standby", "prefer-standby"),
    "load_balance_hosts": ("random", True),
    "replication": ("yes", "physical"),
    "requirepeer": ("postgres", "postgres"),
    "application_name": ("app", "app"),
    "fallback_application_name": ("app", "app"),
    "options": ("-c a=b", "-c a=b"),
    "client_encoding": ("sql-ascii", "SQL_ASCII"),
    "min_protocol_version": ("3.2", 0x30002),
    "max_protocol_version": ("latest", 0x30002),
    "sslmode": ("allow", "allow"),
    "sslnegotiation": ("direct", "direct"),
    "sslrootcert": ("/root.crt", "/root.crt"),
    "sslcert": ("/c", "/c"),
    "sslkey": ("/k", "/k"),
    "sslpassword": ("the keys", "the keys"),
    "sslcertmode": ("disable", "disable"),
    "sslcrl": ("/crl", "/crl"),
    "sslcrldir": ("/crls", "/crls"),
    "sslsni": ("0", False),
    "ssl_min_protocol_version": ("tlsv1.3", "TLSv1.3"),
    "ssl_max_protocol_version": ("TLSV1.2", "TLSv1.2"),
    "keepalives": ("0", False),
    "keepalives_idle": ("5", 5),
    "keepalives_interval": ("6", 6),
    "keepalives_count": ("7", 7),
    "tcp_user_timeout": ("8000", 8000),
    "require_auth": ("scram-sha-256,none", {"scram-sha-256", "none"}),
    "channel_binding": ("require", "require"),
    "krbsrvname": ("pg", "pg"),
    "gssdelegation": ("1", True),
    "scram_client_key": (KEY, KEY),
    "scram_server_key": (KEY, KEY),
    "allow_cleartext_password": ("1", True),
    "scram_max_iterations": ("1", 1),
}
# Accepted, and without any further effect: there is no GSS encryption and no compression.
WITHOUT_EFFECT = {"gssencmode": "prefer", "sslcompression": "0"}
# They lead to files.
LEADING = {"service", "servicefile", "passfile"}
# What a value cannot be without.
WITH = {
    "sslnegotiation": "sslmode=require",
    "scram_client_key": f"scram_server_key={OTHER_KEY}",
    "scram_server_key": f"scram_client_key={OTHER_KEY}",
}
RENAMED = {"fallback_application_name": "application_name"}


def found(parameters: ConnectionParameters, name: str) -> Any:
    """What became of a keyword."""
    name = RENAMED.get(name, name)
    for place in (
        parameters.hosts[0],
        parameters,
        parameters.tls,
        parameters.tcp,
        parameters.authentication,
    ):
        if hasattr(place, name):
            return plain(getattr(place, name))
    raise AssertionError(f"{name} is nowhere")


def test_the_samples_are_of_every_keyword() -> None:
    refused = {name for name, keyword in KEYWORDS.items() if keyword.refusal}
    assert set(KEYWORDS) == SAMPLES.keys() | WITHOUT_EFFECT.keys() | LEADING | refused


@pytest.mark.parametrize("name", SAMPLES)
def test_a_keyword_has_its_effect(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sample, expected = SAMPLES[name]
    more = WITH.get(name, "")
    assert found(resolve("host=h", {}), name) != expected or name == "host"
    assert found(resolve(f"{name}='{sample}' {more}", {}), name) == expected
    assert found(resolve(more, {name: sample}), name) == expected
    assert found(resolve(f"{name}=wrong {more}", {name: sample}), name) == expected
    if (variable := KEYWORDS[name].variable) is not None:
        monkeypatch.setenv(variable, sample)
        assert found(resolve(more, {}), name) == expected
        monkeypatch.setenv(variable, "wrong")
        assert found(resolve(more, {name: sample}), name) == expected


@pytest.mark.parametrize("name", WITHOUT_EFFECT)
def test_a_keyword_has_no_effect(name: str) -> None:
    conninfo = "host=h user=u"
    assert resolve(f"{conninfo} {name}={WITHOUT_EFFECT[name]}", {}) == resolve(conninfo, {})


def test_the_documentation_has_every_keyword() -> None:
    if not DOCUMENTATION.exists():
        pytest.skip("the documentation is in the source tree alone")
    page = DOCUMENTATION.read_text("utf-8")
    for keyword in KEYWORDS.values():
        default = f"`{keyword.default}`" if keyword.default else ""
        variable = f"`{keyword.variable}`" if keyword.variable else ""
        cells = (f"`{keyword.name}`", variable, default, keyword.becomes)
        row = " ".join("|" if not cell else f"| {cell}" for cell in cells) + " |"
        assert row in page


# What is not supported, or makes no sense


# They load code, have a file written, or want what pgrepl does not have.
NOT_SUPPORTED = (
    *("gsslib", "sslkeylogfile"),
    *("oauth_issuer", "oauth_client_id", "oauth_client_secret", "oauth_scope", "oauth_ca_file"),
)


def test_v20_the_keywords_that_are_not_supported() -> None:
    assert {name for name, each in KEYWORDS.items() if each.refusal} == {*NOT_SUPPORTED}


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_v20_a_keyword_that_is_not_supported_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert parse(f"{name}=Zq7") == {name: "Zq7"}
    resolve(f"{name}=''", {})
    variable = KEYWORDS[name].variable
    if variable is not None:
        monkeypatch.setenv(variable, "Zq7")
    for conninfo, keywords in [(f"{name}=Zq7", {}), ("", {name: "Zq7"})] + [("", {})] * bool(
        variable
    ):
        with pytest.raises(UsageError) as caught:
            resolve(conninfo, keywords)
        assert f"the connection option {name} is not supported by pgrepl: " in str(caught.value)
        assert "Zq7" not in str(caught.value)


@pytest.mark.parametrize(
    ("keywords", "words"),
    [
        ({"port": "0"}, "an integer between 1 and 65535 for port, got something else"),
        ({"port": 65536}, "integer between 1 and 65535 for port"),
        ({"port": "5432x"}, "integer between 1 and 65535 for port"),
        ({"port": "\u0665"}, "integer between 1 and 65535 for port"),
        ({"port": "1e3"}, "integer between 1 and 65535 for port"),
        ({"port": "0" * 5000}, "integer between 1 and 65535 for port"),
        ({"port": True, "host": "a,b", "hostaddr": ",,"}, "could not match 2 host names to 3"),
        ({"host": "a,b", "port": "1,2,3"}, "could not match 3 port numbers to 2 hosts"),
        ({"connect_timeout": "soon"}, "for connect_timeout"),
        ({"connect_timeout": "1.5"}, "for connect_timeout"),
        ({"connect_timeout": ""}, "connect_timeout, got an empty value; leave it out for the def"),
        ({"connect_timeout": 2**31}, "for connect_timeout"),
        ({"connect_timeout": 1e300}, "at most 2147483647 for connect_timeout"),
        ({"connect_timeout": float("nan")}, "a number of seconds for connect_timeout"),
        ({"keepalives": "yes"}, "for keepalives, got something else"),
        ({"scram_max_iterations": 0}, "between 1 and 2147483647 for scram_max_iterations"),
        ({"allow_cleartext_password": "yes"}, "allow_cleartext_password to be 0 or 1"),
        ({"sslsni": "on"}, "expected sslsni to be 0 or 1"),
        ({"gssdelegation": 2}, "expected gssdelegation to be 0 or 1"),
        ({"sslmode": "on"}, "expected sslmode to be disable, allow, prefer"),
        ({"sslmode": ""}, "or verify-full, got an empty value; leave it out for the default"),
        ({"sslrootcert": "system", "sslmode": "require"}, "verify-full with sslrootcert=system"),
        ({"sslnegotiation": "direct"}, "verify-full with sslnegotiation=direct, got prefer"),
        ({"sslcertmode": "require"}, "allow or disable for sslcertmode, got require: pgrepl"),
        ({"sslcompression": "1"}, "expected 0 for sslcompression"),
        ({"gssencmode": "require"}, "prefer or disable for gssencmode, got require: pgrepl"),
        ({"gssencmode": "no"}, "gssencmode to be disable or prefer"),
        ({"ssl_min_protocol_version": "SSLv3"}, "one of TLSv1, TLSv1.1, TLSv1.2, TLSv1.3 for ssl_"),
        ({"ssl_max_protocol_version": "TLSv1.1"}, "at most ssl_max_protocol_version, got TLSv1.2"),
        ({"min_protocol_version": "3.1"}, "min_protocol_version to be 3.0, 3.2 or latest"),
        (
            {"min_protocol_version": "3.2", "max_protocol_version": "3.0"},
            "min_protocol_version to be at most max_protocol_version",
        ),
        ({"channel_binding": "yes"}, "channel_binding to be disable, prefer or require"),
        ({"target_session_attrs": "master"}, "target_session_attrs to be any, read-write"),
        ({"load_balance_hosts": True}, "load_balance_hosts to be disable or random"),
        ({"require_auth": "md5,!none"}, "all with a '!', or all without for require_auth"),
        ({"require_auth": "md5,md5"}, "each method once for require_auth"),
        ({"require_auth": "scram"}, "methods among gss, md5, none, oauth"),
        ({"scram_client_key": KEY}, "scram_client_key and scram_server_key together"),
        ({"scram_server_key": KEY}, "scram_client_key and scram_server_key together"),
        ({"scram_client_key": KEY[:-4]}, "base64 of 32 bytes for scram_client_key"),
        ({"scram_client_key": KEY + "\n"}, "base64 of 32 bytes for scram_client_key"),
        ({"scram_server_key": "é" * 44}, "base64 of 32 bytes for scram_server_key"),
        ({"client_encoding": "EUC_TW"}, "expected auto or an encoding that PostgreSQL and Pyt"),
        ({"client_encoding": "UTF16"}, "expected auto or an encoding that PostgreSQL and Pyt"),
        ({"client_encoding": "AUTO"}, "expected auto or an encoding that PostgreSQL and Pyt"),
        ({"replication": "false"}, "got a false one: pgrepl connects for replication only"),
        ({"replication": "DATABASE"}, "'database' (logical) or a true boolean (physical) for repl"),
        ({"replication": "o"}, "'database' (logical) or a true boolean (physical) for repl"),
        ({"replication": ""}, "'database' (logical) or a true boolean (physical) for repl"),
        ({"user": "a\0b"}, "without zero bytes for user"),
        ({"password": "a\0b"}, "without zero bytes for password"),
        ({"user": "\ud800"}, "UTF-8 can say for user"),
        ({"password": "x\udfffy\ud83d"}, "UTF-8 can say for password"),
        ({"port": 5432.0}, "expected str, int or bool for port, got float"),
        ({"port": Path("5432")}, "expected str, int or bool for port, got PosixPath"),
        ({"password": b"x"}, "expected str, int, bool or Secret for password, got bytes"),
        ({"sslkey": Secret("x")}, "expected str, int, bool or Path for sslkey, got Secret"),
        ({"host": ["a", "b"]}, "expected str, int, bool or Path for host, got list"),
        ({"options": "x" * 10_000}, "of startup parameters, the most that a server reads, got 10"),
        ({"dbname": "é" * 5_000}, "; shorten dbname"),
        ({"user": "x" * 5_000}, "; shorten user"),
        ({"application_name": "x" * 10_000}, "; shorten application_name"),
    ],
)
def test_a_value_that_makes_no_sense(keywords: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("", keywords)
    assert words.replace("PosixPath", type(Path()).__name__) in str(caught.value)


def test_a_number_that_python_cannot_write_out() -> None:
    for number in (10**5000, -(10**5000)):
        with pytest.raises(UsageError, match="integer between 1 and 65535 for port"):
            resolve("", {"port": number})


def test_an_error_tells_who_gave_the_value(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for conninfo, keywords, source in (
        ("port=x", {}, "(from the conninfo)"),
        ("postgresql://h:x", {}, "(from the conninfo)"),
        ("", {"port": "x"}, "(from the argument port)"),
        ("", {}, "(from PGPORT)"),
        ("service=s", {}, "(from line 3 of the service file that PGSERVICEFILE names)"),
    ):
        monkeypatch.setenv("PGPORT", "x")
        (tmp_path / "services").write_text("# ours\n[s]\nport=x\n")
        monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
        with pytest.raises(UsageError) as caught:
            resolve(conninfo, keywords)
        assert str(caught.value).endswith(source)
    monkeypatch.setenv("PGCLIENTENCODING", "EUC_TW")
    with pytest.raises(UsageError, match="from PGCLIENTENCODING"):
        resolve("port=1", {})


def test_the_longest_startup_packet() -> None:
    """Up to the last byte that a server reads, and not one more."""
    parameters = resolve("user=u dbname=d host=h", {})
    used = 5 + sum(len(k) + len(v) + 2 for k, v in parameters.startup_parameters().items())
    room = 10_000 - used - len("options") - 2
    resolve("user=u dbname=d host=h", {"options": "x" * room})
    with pytest.raises(UsageError, match="got 10001; shorten options"):
        resolve("user=u dbname=d host=h", {"options": "x" * (room + 1)})


# Where values come from


def test_precedence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "services").write_text("[s]\nuser=service\ndbname=service\noptions=service\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    for name in ("USER", "DATABASE", "OPTIONS", "APPNAME"):
        monkeypatch.setenv(f"PG{name}", "environment")
    conninfo = "service=s user=string dbname=string"
    made = resolve(conninfo, {"user": "argument"})
    assert (made.user, made.dbname) == ("argument", "string")
    assert (made.options, made.application_name) == ("service", "environment")
    assert resolve("postgresql://u@h/d?port=1", {"port": 2}).hosts[0].port == 2
    assert resolve("", {"user": None, "options": None}).user == "environment"
    # A variable names a service as well, and an argument another one.
    monkeypatch.setenv("PGSERVICE", "s")
    assert resolve("", {}).user == "service"
    assert resolve("dbname=d", {}).dbname == "d"
    with pytest.raises(UsageError, match="the service that the argument service names"):
        resolve("service=s", {"service": "t"})


def test_what_is_given_as_empty_hides_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("HOST", "USER", "DATABASE", "PASSWORD", "OPTIONS", "APPNAME", "SSLROOTCERT")
    for name in names:
        monkeypatch.setenv(f"PG{name}", "environment")
    empty = "host='' user='' dbname='' password='' options='' application_name='' sslrootcert=''"
    parameters = resolve(empty, {})
    assert "environment" not in repr(parameters)
    assert parameters.hosts[0].password is None
    for name in names:
        monkeypatch.setenv(f"PG{name}", "")
    assert resolve("", {}) == parameters


def test_defaults() -> None:
    parameters = resolve("", {"user": "ann"})
    [host] = parameters.hosts
    assert (host.port, host.hostaddr, host.password) == (5432, None, None)
    assert host.is_unix_socket or os.name == "nt"
    assert parameters == ConnectionParameters((host,), "ann", "ann")
    assert resolve("sslrootcert=system", {}).tls.sslmode == "verify-full"
    assert resolve("min_protocol_version=3.2", {}).max_protocol_version == 0x30002
    assert resolve("min_protocol_version=3.0", {}).max_protocol_version == 0x30000


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", None), ("-5", None), ("' 7 '", 7.0), ("1", 1.0), ("2147483647", 2147483647.0)],
)
def test_a_time_limit_from_a_string(value: str, seconds: float | None) -> None:
    assert resolve(f"connect_timeout={value}", {}).connect_timeout == seconds


@pytest.mark.parametrize(
    ("value", "seconds"),
    [(0, None), (0.25, 0.25), (3, 3.0), (-1.5, None), (float("inf"), None), (True, 1.0)],
)
def test_a_time_limit_from_an_argument(value: float, seconds: float | None) -> None:
    assert resolve("connect_timeout=9", {"connect_timeout": value}).connect_timeout == seconds


def test_arguments_of_other_types() -> None:
    parameters = resolve(
        "",
        {
            "host": Path("/tmp/x"),
            "port": 1,
            "password": Secret("Zq7"),
            "sslcert": Path("a"),
            "sslsni": False,
            "load_balance_hosts": None,
            "user": 5,
        },
    )
    [host] = parameters.hosts
    assert (Path(host.host), host.port, plain(host.password)) == (Path("/tmp/x"), 1, "Zq7")
    assert (parameters.tls.sslcert, parameters.tls.sslsni, parameters.user) == ("a", False, "5")


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


@pytest.mark.parametrize(
    ("conninfo", "argument", "expected"),
    [
        ("", None, "database"),
        ("replication=database", None, "database"),
        ("replication=true", None, "physical"),
        ("replication=ON", None, "physical"),
        ("replication=1", None, "physical"),
        ("replication=y", None, "physical"),
        ("replication=Tr", None, "physical"),
        ("replication=database", "physical", "physical"),
        ("replication=1", "database", "database"),
        ("replication=false", "physical", "physical"),
        ("postgresql://?replication=true", None, "physical"),
    ],
)
def test_the_kind_of_replication(conninfo: str, argument: Any, expected: str) -> None:
    assert resolve(conninfo, {}, replication=argument).replication == expected


def test_a_replication_that_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="expected replication='database' or 'physical', got 'yes"):
        resolve("", {}, replication="yes")  # type: ignore[arg-type]


def test_the_startup_parameters() -> None:
    asked = {"host": "h", "user": "u", "password": "p", "dbname": "d"}
    logical = resolve("options='-c a=b' application_name=app", asked).startup_parameters()
    assert (logical["user"], logical["database"], logical["replication"]) == ("u", "d", "database")
    assert (logical["options"], logical["application_name"]) == ("-c a=b", "app")
    assert (logical["client_encoding"], logical["DateStyle"]) == ("UTF8", "ISO")
    made = resolve("", asked, replication="physical")
    assert made.session_settings() == {}
    physical = made.startup_parameters()
    assert physical["replication"] == "true"
    # The server has no use for it; PgBouncer goes by it.
    assert physical["database"] == "d"
    assert "options" not in physical
    assert "p" not in {*logical.values(), *physical.values()}


def test_the_name_of_the_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(conninfo: str) -> str:
        return resolve(conninfo, {}).application_name

    assert name("") == "pgrepl"
    assert name("fallback_application_name=f") == "f"
    assert name("fallback_application_name=f application_name=a") == "a"
    assert name("fallback_application_name=f application_name=''") == ""
    assert "application_name" not in resolve("application_name=''", {}).startup_parameters()
    monkeypatch.setenv("PGAPPNAME", "environment")
    assert name("fallback_application_name=f") == "environment"


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"PGTZ": "Asia/Kathmandu"}, {"TimeZone": "Asia/Kathmandu"}),
        ({"PGGEQO": "off"}, {"geqo": "off"}),
        ({"PGTZ": "default", "PGGEQO": "DEFAULT", "PGDATESTYLE": "Default"}, {}),
        ({"PGTZ": "", "PGGEQO": "", "PGDATESTYLE": ""}, {}),
        ({"PGDATESTYLE": "ISO"}, {"DateStyle": "ISO"}),
        ({"PGDATESTYLE": "SQL, DMY"}, {"DateStyle": "ISO, DMY"}),
        ({"PGDATESTYLE": "european"}, {"DateStyle": "ISO, DMY"}),
        ({"PGDATESTYLE": "postgres,us"}, {"DateStyle": "ISO, MDY"}),
        ({"PGDATESTYLE": "ymd , iso"}, {"DateStyle": "ISO, YMD"}),
        ({"PGDATESTYLE": "German"}, {"DateStyle": "ISO, DMY"}),
        ({"PGDATESTYLE": "German, YMD"}, {"DateStyle": "ISO, YMD"}),
        ({"PGDATESTYLE": "NonEuropean"}, {"DateStyle": "ISO, MDY"}),
    ],
)
def test_settings_from_the_environment(
    variables: dict[str, str], expected: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    parameters = resolve("", {})
    assert dict(parameters.settings) == expected
    assert parameters.startup_parameters().items() >= expected.items()
    assert parameters.startup_parameters()["DateStyle"].startswith("ISO")


@pytest.mark.parametrize("value", ["DMY, MDY", "Zq7", "ISO DMY", "ISO,,DMY", "isodmy"])
def test_a_date_style_that_makes_no_sense(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATESTYLE", value)
    with pytest.raises(UsageError, match="in PGDATESTYLE, such as 'ISO, DMY'") as caught:
        resolve("", {})
    assert "Zq7" not in str(caught.value)


METHODS = st.sets(st.sampled_from(sorted(AUTHENTICATION_METHODS)), min_size=1)


@given(METHODS)
def test_v19_methods_that_will_do_and_those_that_will_not(methods: set[str]) -> None:
    def allowed(listed: str) -> set[str]:
        return set(resolve("", {"require_auth": listed}).authentication.require_auth or ())

    assert allowed(",".join(methods)) == methods
    assert allowed(",".join(f"!{each}" for each in methods)) == AUTHENTICATION_METHODS - methods


def test_every_method_will_do_unless_some_are_asked_for() -> None:
    assert resolve("", {}).authentication.require_auth is None
    assert "none" in (resolve("require_auth=!md5", {}).authentication.require_auth or ())
    assert "none" not in (resolve("require_auth=md5", {}).authentication.require_auth or ())


def test_an_empty_list_of_methods_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in libpq: a list that turned out empty by mistake lets no password go anywhere."""
    assert resolve("require_auth=''", {}).authentication.require_auth == frozenset({"none"})
    monkeypatch.setenv("PGREQUIREAUTH", "")
    assert resolve("", {}).authentication.require_auth == frozenset({"none"})
