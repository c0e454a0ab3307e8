"""What commands print: nothing that a server sends can do anything to a terminal."""

from __future__ import annotations

import io
import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgrepl.cli.failure import CommandFailed, OutputLost
from pgrepl.cli.printing import (
    bytes_text,
    duration_text,
    print_json,
    print_rich,
    print_text,
    printable,
)


@given(st.text())
def test_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_json_is_safe_and_whole(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"é\x1b[2J\u202e\x7f\x85": ["a\nb", None, True, 1.5, {"\U000e0001": "\u2028"}], "x": []}
    print_json(value)
    shown = capsys.readouterr().out
    assert json.loads(shown) == value
    assert all(line.isprintable() for line in shown.split("\n"))
    assert "é" in shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 kB"),
        (16 << 20, "16.0 MB"),
        (3 << 39, "1.5 TB"),
        (1 << 63, "8.0 EB"),
        (1 << 80, "1048576.0 EB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert bytes_text(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (61.5, "1 min 1 s"),
        (3600, "1 h"),
        (7322, "2 h 2 min"),
        (86400, "1 d"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration_text(seconds) == shown


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
