"""What a conninfo holds shows nowhere: in no error, no repr, no log and no local of a traceback."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pgrepl.conninfo import parse, resolve
from pgrepl.conninfo.keywords import KEYWORDS
from pgrepl.errors import UsageError
from pgrepl.secret import Secret
from tests.support.disclosure import everything_about

CANARY = "Zq7/Xk9 %é"
PIECES = ("Zq7", "Xk9", "Wv3")
SPECIAL = "/@:?#&%[], '\\;+="

pytestmark = pytest.mark.usefixtures("surroundings")


def shows_nothing(call: Callable[[], object]) -> None:
    """What comes of a call, result or error, has no piece of the canary in sight."""
    try:
        shown = repr(call())
    except UsageError as error:
        assert error.__context__ is None
        shown = everything_about(error)
        assert "pgrepl" in shown, "there should be frames of the library to look at"
    assert not any(piece in shown for piece in PIECES)


PASSWORDS = st.lists(
    st.sampled_from(["Zq7", "Xk9", "Wv3", "12", *SPECIAL]), min_size=1, max_size=8
).map("".join)


@given(PASSWORDS)
@example("@Zq7:")
def test_v17_a_password_that_was_not_quoted(password: str) -> None:
    for conninfo in (
        f"postgresql://user:{password}@host/db",
        f"postgresql://user:{password}@host:5432/db?application_name=x",
        f"postgresql://user:{password}@host:5432,other/db?sslmode=require&port=1,2",
        f"postgresql://:{password}@/",
        f"postgresql://user@host/db?password={password}&port=1",
        f"password={password} host=host user=user dbname=db",
        f"host=host user=user dbname=db password={password}",
        f"password='{password}' host=host user=user dbname=db",
        f"sslpassword={password} scram_client_key={password} host=host user=user",
        f"port={password} host=host user=user dbname=db",
        f"sslmode={password} connect_timeout={password} host=host user=user dbname=db",
        f"host=host user=user {password}",
    ):
        shows_nothing(lambda conninfo=conninfo: resolve(conninfo, {}))  # type: ignore[misc]


@given(PASSWORDS)
@example("Zq7@Zq7/")
def test_a_conninfo_that_is_only_read(password: str) -> None:
    """Whatever libpq takes for the name of a database, by mistake, is masked where it may be the
    rest of a password."""
    for conninfo in (
        f"postgresql://user:{password}@host/db",
        f"postgresql://user@host/db?password={password}",
        f"password={password}",
        f"password='{password}' host=host",
    ):
        try:
            parsed = parse(conninfo)
        except UsageError as error:
            assert not any(piece in everything_about(error) for piece in PIECES)
        else:
            read = parsed.get("password", "")
            assert not any(piece in repr(parsed) for piece in PIECES if piece in read)


# What is meant to be shown, to say where a connection goes, or names a file.
SHOWN = {
    *("host", "hostaddr", "user", "dbname", "application_name", "fallback_application_name"),
    *("options", "requirepeer", "krbsrvname"),
    *("sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"),
}


@pytest.mark.parametrize("name", sorted(set(KEYWORDS) - SHOWN))
def test_v17_no_keyword_repeats_its_value(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it came from; a value may be a piece of a password that was not quoted."""
    shows_nothing(lambda: resolve(f"host=h {name}='{CANARY}'", {}))
    shows_nothing(lambda: resolve(f"postgresql://h?{name}={quote(CANARY, safe='')}", {}))
    shows_nothing(lambda: resolve("host=h", {name: CANARY}))
    shows_nothing(lambda: resolve("host=h", {name: CANARY + "\0"}))
    shows_nothing(lambda: resolve("host=h", {name: CANARY + "\ud800"}))
    shows_nothing(lambda: resolve("host=h", {name: CANARY.encode()}))
    shows_nothing(lambda: resolve("host=h", {name: [CANARY]}))
    if (variable := KEYWORDS[name].variable) is not None:
        monkeypatch.setenv(variable, CANARY)
        shows_nothing(lambda: resolve("host=h", {}))


@pytest.mark.parametrize("name", sorted(SHOWN))
def test_a_value_that_cannot_be_is_not_repeated_either(name: str) -> None:
    for value in (CANARY + "\0", CANARY + "\ud800", CANARY.encode(), [CANARY]):
        with pytest.raises(UsageError, match=f"for {name}"):
            resolve("", {name: value})
        shows_nothing(lambda value=value: resolve("", {name: value}))  # type: ignore[misc]


def test_an_argument_beside_the_password_is_wrong() -> None:
    for keywords in ({"port": "x"}, {"pasword": 1}, {"service": "s"}, {"options": "x" * 10_000}):
        shows_nothing(
            lambda keywords=keywords: resolve(  # type: ignore[misc]
                f"postgresql://u:{quote(CANARY, safe='')}@h", {"password": CANARY, **keywords}
            )
        )
        shows_nothing(
            lambda keywords=keywords: resolve(  # type: ignore[misc]
                f"password='{CANARY}'", {**keywords, "sslpassword": CANARY}
            )
        )


@pytest.mark.parametrize(
    "line",
    ["password={}", "password ={}", "{}", "nonsense={}", "port={}", "sslmode={}", "{}=x", "#{}"],
)
@pytest.mark.parametrize("more", ["", "port=x", "x" * 1030, "service=t"])
def test_a_service_file(
    line: str, more: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "services"
    file.write_text(f"[s]\n{line.format(CANARY)}\n{more}\n", "utf-8")
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    shows_nothing(lambda: resolve("service=s host=h", {}))


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_password_file(
    mode: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "passwords"
    file.write_text(f"*:*:*:*:{CANARY}\n", "utf-8")
    file.chmod(mode)
    monkeypatch.setenv("PGPASSFILE", str(file))
    with caplog.at_level(logging.DEBUG):
        shows_nothing(lambda: resolve("host=h", {}))
        shows_nothing(lambda: resolve("host=h,i connect_timeout=x", {}))
        shows_nothing(lambda: resolve("host=h,i port=1,x", {}))
    told = caplog.text + "".join(f"{record.__dict__}" for record in caplog.records)
    assert not any(piece in told for piece in PIECES)


def test_parameters_do_not_show_the_password() -> None:
    secrets: dict[str, Any] = {"password": "Zq7Xk9", "sslpassword": "Wv3Zq7"}
    parameters = resolve("user=ann host=h", secrets)
    [host] = parameters.hosts
    assert isinstance(host.password, Secret)
    assert host.password.reveal() == "Zq7Xk9"
    assert "password=***" in repr(parameters)
    shown = f"{parameters!r} {dataclasses.fields(parameters)} {parameters.startup_parameters()}"
    assert not any(piece in shown for piece in PIECES)
