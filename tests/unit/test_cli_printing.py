"""What commands print: nothing that a server sends can do anything to a terminal."""

from __future__ import annotations

import io
import json
import os
import sys

import pytest

from pgrepl.cli.failure import CommandFailed, OutputLost
from pgrepl.cli.printing import print_json, print_notice, print_rich, print_text


def test_json_is_safe_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"é\x1b[2J\u202e\x7f\x85": ["a\nb", None, True, 1.5, {"\U000e0001": "\u2028"}], "x": []}
    print_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "é" in shown


def test_what_the_output_cannot_encode(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    print_text("Größe \u2026")
    assert raw.getvalue() == b"Gr\\xf6\\xdfe \\u2026\n"


def test_a_closed_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(CommandFailed, match="it is closed"):
        print_text("x")


def test_a_lost_output(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Broken())
    with pytest.raises(OutputLost):
        print_text("x")


def test_rich_text_is_whole_and_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    text = pytest.importorskip("rich.text")
    line = "[bold]:smile: " + "x" * 500 + " 12 'y'"
    print_rich(text.Text(line), text.Text("b"))
    assert capsys.readouterr().out == f"{line}\nb\n"


def test_without_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(CommandFailed, match="needs the package rich") as caught:
        print_rich()
    assert caught.value.status == 2


# What goes to standard error

NOTICE = "expected \x1b[2J the slot to be there; " * 5 + "slot_of_a_very_long_name" * 4
SHOWN = "pgrepl: " + NOTICE.replace("\x1b", r"\x1b")


def test_a_notice_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    print_notice(f"{NOTICE}\nand more")
    assert capsys.readouterr().err == f"{SHOWN}; and more\n"


@pytest.mark.parametrize("columns", [80, 1])
def test_a_terminal_gets_whole_words(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

        def fileno(self) -> int:
            return 2

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(os, "get_terminal_size", lambda _: os.terminal_size((columns, 24)))
    print_notice(NOTICE)
    first, *others = terminal.getvalue().splitlines()
    assert {line[:8] for line in others} == {" " * 8}
    assert " ".join([first, *(line[8:] for line in others)]) == SHOWN
    longest = max(columns, 40)
    assert all(len(line) <= longest or " " not in line.strip() for line in [first, *others])
    assert len(others) > 2


def test_nobody_to_tell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    print_notice("x")
    assert capsys.readouterr().out == ""
