"""The service file and the password file are read here as by libpq: the one that comes with
psycopg, asked without a server."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgrepl.conninfo import resolve
from pgrepl.errors import UsageError

pytest.importorskip("psycopg")
from tests.support import libpq  # noqa: E402

EXAMPLES = 300

pytestmark = pytest.mark.usefixtures("surroundings")


# The password file

SERVERS = [
    "host=/nonexistent port=1 dbname=d user=u",
    "host=h hostaddr=127.0.0.1 port=1 dbname=d user=u",
    "hostaddr=127.0.0.1 port=1 dbname=d user=u",
    r"host='@a:b\\' port=1 dbname='*' user='é'",
    "host=@a:b hostaddr=::1 port=01 dbname=d user=u:p",
]
FIELDS = st.sampled_from(
    ["*", "/nonexistent", "h", "127.0.0.1", "1", "d", "u", "é", r"@a\:b\\", r"\*", "x", "", r"\u"]
    + [r"\h", "**", "*d", " u", r"@a\:b", "@a:b", "01", r"u\:p", "u:p", "@a"]
)
PASSWORDS = st.text(st.sampled_from("p:\\ \t#*é"), max_size=6)
LINES = st.one_of(
    st.tuples(FIELDS, FIELDS, FIELDS, FIELDS, PASSWORDS).map(":".join),
    st.tuples(st.just("*:*:*"), FIELDS, PASSWORDS).map(":".join),
    st.tuples(FIELDS, st.just("*:*:*"), PASSWORDS).map(":".join),
    st.tuples(st.just("*"), FIELDS, st.just("*:*"), PASSWORDS).map(":".join),
    st.sampled_from(["", "#*:*:*:*:p", " #", "*:*:*:*", "*:*:*:*:", "\\", "*:*:*:*\\:p", "\r"]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(LINES, max_size=4), st.sampled_from(["\n", "\r\n"]), st.sampled_from(SERVERS))
def test_a_password_file_is_read_alike(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], end: str, server: str
) -> None:
    file = tmp_path_factory.getbasetemp() / "passwords"
    file.write_bytes(end.join(lines).encode())
    file.chmod(0o600)
    conninfo = f"{server} passfile={file}"
    password = resolve(conninfo, {}).hosts[0].password
    assert (password.reveal() if password else "") == libpq.opinion(conninfo).password


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o700, 0o640, 0o604, 0o601, 0o660, 0o200])
def test_the_permissions_of_a_password_file(
    mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "passwords"
    file.write_text("*:*:*:*:Zq7")
    file.chmod(mode)
    conninfo = f"{SERVERS[0]} passfile={file}"
    with caplog.at_level(logging.WARNING, logger="pgrepl.conninfo"):
        password = resolve(conninfo, {}).hosts[0].password
    assert (password.reveal() if password else "") == libpq.opinion(conninfo).password
    assert bool(caplog.records) == bool(mode & 0o077)


# The service file

SETTINGS = st.one_of(
    st.sampled_from(["[s]", "[s", "[t]", "[s]x", "[]", "[ s]", " [s] ", "#", "# user=x", "", "\t"]),
    st.tuples(
        st.sampled_from(["user", "dbname", "application_name", " user", "options"]),
        st.sampled_from(["=", "=", "=", " = "]),
        st.sampled_from(["", "a", " b", "c ", "d=e", "'f'", "\\g", "é", "x" * 1030, "h\t\v#i"]),
    ).map("".join),
    st.sampled_from(["user", "=x", "nonsense=x", "USER=x", "service=t", "servicefile=x"]),
    st.sampled_from(["ssl=true", "requiressl=1", "user=\xa0", "password=p"]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.lists(SETTINGS, max_size=5).map(lambda lines: ["[s]", *lines]),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", " user=given", " application_name=''"]),
)
def test_a_service_file_is_read_alike(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[str],
    is_headed: bool,
    end: str,
    more: str,
) -> None:
    file = tmp_path_factory.getbasetemp() / "services"
    file.write_bytes(end.join(lines if is_headed else lines[1:]).encode())
    conninfo = f"host=/nonexistent service=s{more}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGSERVICEFILE", str(file))
        theirs = libpq.opinion(conninfo)
        try:
            parameters = resolve(conninfo, {})
        except UsageError as error:
            assert theirs.refused is not None, error
            return
    assert theirs.refused is None
    assert parameters.user == theirs.values["user"]
    assert parameters.dbname == theirs.values["dbname"]
    assert parameters.options == (theirs.values["options"] or None)
    assert parameters.application_name == theirs.values.get("application_name", "pgrepl")
    password = parameters.hosts[0].password
    assert (password.reveal() if password else "") == theirs.password


@pytest.mark.parametrize("length", [1020, 1021, 1022, 1023, 1024, 1025])
@pytest.mark.parametrize("end", ["", "\n", "\nuser=u"])
def test_a_line_that_is_too_long(
    length: int, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    file.write_text("[s]\n" + "dbname=".ljust(length, "x") + end)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    theirs = libpq.opinion("host=/nonexistent service=s")
    try:
        resolve("host=/nonexistent service=s", {})
    except UsageError as error:
        assert "bytes in line 2" in str(error)
        assert theirs.refused is not None
    else:
        assert theirs.refused is None


@pytest.mark.parametrize("place", ["HOME", "PGSYSCONFDIR", "PGSERVICEFILE", "both", "nowhere"])
@pytest.mark.parametrize("by", ["conninfo", "PGSERVICE"])
def test_the_places_of_a_service_file(
    place: str, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "HOME": tmp_path / "home" / ".pg_service.conf",
        "PGSYSCONFDIR": tmp_path / "system" / "pg_service.conf",
        "PGSERVICEFILE": tmp_path / "file",
    }
    for name, file in files.items():
        file.parent.mkdir(exist_ok=True)
        if name == "PGSERVICEFILE":
            if place == name:
                monkeypatch.setenv(name, str(file))
        else:
            monkeypatch.setenv(name, str(file.parent))
        section = "[s]" if name == place or place == "both" else "[other]"
        file.write_text(f"{section}\ndbname={name}\n")
    conninfo = "host=/nonexistent user=u "
    if by == "conninfo":
        conninfo += "service=s"
    else:
        monkeypatch.setenv("PGSERVICE", "s")
    theirs = libpq.opinion(conninfo)
    if place == "nowhere":
        assert theirs.refused is not None
        with pytest.raises(UsageError, match="expected a section for the service"):
            resolve(conninfo, {})
    else:
        assert resolve(conninfo, {}).dbname == theirs.values["dbname"]
        assert theirs.values["dbname"] == ("HOME" if place == "both" else place)
