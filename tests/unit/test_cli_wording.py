"""The library's errors and log records in the program's words."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import pgrepl
from pgrepl.cli.wording import _WORDS, RecordFormatter, in_programs_words
from pgrepl.protocol.backend import _log_notice


@pytest.mark.parametrize("phrase", [librarys for librarys, _ in _WORDS])
def test_the_library_still_says_it(phrase: str) -> None:
    """A phrase that the library has changed would be shown as it is there."""
    root = Path(pgrepl.__file__).parent
    files = [root / "remedies.py", *(root / "protocol").glob("*.py")]
    files += (root / "basebackup").glob("*.py")
    texts = [
        node.value
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert any(phrase in text for text in texts)


def test_only_a_plain_name_is_put_into_a_command() -> None:
    said = (
        "'s' is of plugin {!r}; name another one, or read what that plugin writes with stream_raw()"
    )
    assert in_programs_words(said.format("wal2json")).endswith(" with --plugin wal2json")
    assert in_programs_words(said.format("a; b")).endswith(" with --plugin and its name")


def test_a_notice_by_lines(caplog: pytest.LogCaptureFixture) -> None:
    fields = {
        "severity": "WARNING",
        "sqlstate": "01000",
        "message": "it's\n\x1b[2J",
        "detail": "100 %\nof it",
    }
    with caplog.at_level(logging.INFO, "pgrepl.notice"):
        _log_notice(fields)
    [record] = caplog.records
    assert RecordFormatter().format(record).split("\n") == [
        "pgrepl: WARNING 01000: it's",
        r"        \x1b[2J",
        "        DETAIL: 100 %",
        "        of it",
    ]
