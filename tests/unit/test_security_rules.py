"""The rules of docs/security.md: the table names what there is, and tests have their numbers.

That they fail without the rule is for `make rules` to show; here, that it still could.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.rules.edits import EDITS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"

pytestmark = pytest.mark.skipif(not PAGE.exists(), reason="the page is in the source tree alone")


class Rule(NamedTuple):
    """A row of the table: what its cells name."""

    number: int
    code: list[str]
    tests: list[str]


def rules() -> list[Rule]:
    found = []
    for row in PAGE.read_text("utf-8").splitlines():
        if match := re.match(r"\| V([0-9]+) \|", row):
            *_, code, tests = row.strip("|").split(" | ")
            found.append(Rule(int(match[1]), *(re.findall(r"`([^`]+)`", c) for c in (code, tests))))
    return found


def numbers(test: str) -> set[int]:
    """The numbers in a test's name: 5 and 6 of ``test_v5_v6_a_length``."""
    match = re.match(r"test_((?:v[0-9]+_)*)", test)
    return {int(number[1:]) for number in match[1].split("_")[:-1]} if match else set()


def named(words: list[str], roots: list[Path]) -> Iterator[tuple[list[Path], str]]:
    """Each name in a cell with the files that stand before it, and each file with no name."""
    files: list[Path] = []
    ended = False
    for word in words:
        if "/" in word or word.endswith(".py"):
            if ended:
                files, ended = [], False
            # A stage of the codec has a file in each twin.
            pattern = word if "." in word.rpartition("/")[2] else f"{word}.py*"
            matching = sorted(path for root in roots for path in root.glob(pattern))
            assert matching, f"there is no {word}"
            files += matching
            yield matching, ""
        else:
            ended = True
            yield files, word


def test_the_rules_are_numbered() -> None:
    # There is no V21.
    assert [rule.number for rule in rules()] == [*range(1, 21), 22, 23]


def test_the_code_of_each_rule_is_there() -> None:
    for rule in rules():
        for files, name in named(rule.code, [ROOT / "pgrepl", ROOT]):
            is_defined = re.compile(
                rf"^\s*(?:(?:async )?def |class )?{name}\b *[:(=]", re.MULTILINE
            )
            texts = [file.read_text("utf-8") for file in files]
            assert not name or any(map(is_defined.search, texts)), (rule, name)


def test_the_tests_of_each_rule_are_there_and_have_its_number() -> None:
    for rule in rules():
        target = re.compile(r"make ([a-z-]+)")
        for word in filter(target.fullmatch, rule.tests):
            assert f"\n{word[5:]}: " in (ROOT / "Makefile").read_text("utf-8")
        tests = [word for word in rule.tests if not target.fullmatch(word)]
        assert any(numbers(word) for word in tests), rule
        for files, name in named(tests, [ROOT / "tests"]):
            assert not name or rule.number in numbers(name), (rule, name)
            for file in files if name else ():
                assert f"\ndef {name}(" in file.read_text("utf-8"), (rule, file, name)


def test_no_test_has_the_number_of_a_rule_that_there_is_not() -> None:
    known = {rule.number for rule in rules()}
    for file in (ROOT / "tests").glob("**/test_*.py"):
        for name in re.findall(r"def (test_v[0-9]\w*)", file.read_text("utf-8")):
            assert numbers(name) <= known, (file, name)


def test_each_rule_can_be_taken_out() -> None:
    assert {edit.rule for edit in EDITS} == {rule.number for rule in rules()}
    for edit in EDITS:
        edit.apply(ROOT, write=False)
