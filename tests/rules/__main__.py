"""Take each rule of docs/security.md out of the code, and see that a test of it fails.

    python -m tests.rules            all of them: a quarter of an hour
    python -m tests.rules 4 22       some

Each edit is made in a copy of the tree, in which the tests that have the rule's number in their
name are run until one fails. Before that they must pass in a copy that nobody has edited. Needs the
C core, built in place; no server.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, NamedTuple
from xml.etree import ElementTree

from .edits import EDITS, Edit, StaleEdit

ROOT: Final = Path(__file__).parents[2]
# What is quick comes first. Those of live servers are not for here.
FOLDERS: Final = ("unit", "parity", "hostile")
# Seconds: for one test, which an edit may have hang; for all tests of an edit, and without one.
TEST_LIMIT, EDIT_LIMIT, WHOLE_LIMIT = 60, 600, 3600
TESTS_FAILED: Final = 1  # of pytest's statuses
# What an edit fails by that is no Python.
NO_PROOF: Final = re.compile("NameError|UnboundLocalError|SyntaxError|ImportError")
LEFT_OUT: Final = shutil.ignore_patterns(".*", "__pycache__", "dist", "lib.*", "c-test", "results")


class Outcome(NamedTuple):
    """What became of a run: how many tests there were by rule, and which have failed."""

    ran: Counter[int]
    failed: list[str]
    status: int
    output: str


def rules_of(test: str) -> list[int]:
    """The rules that a test's name has the numbers of: ``test_v5_v6_a_length``."""
    numbers = re.match(r"test_((?:v[0-9]+_)+)", test)
    return [int(number[1:]) for number in numbers[1].split("_")[:-1]] if numbers else []


def files_of(rules: Iterable[int]) -> list[str]:
    """The files with tests of these rules."""
    wanted = re.compile(r"def test_(?:v[0-9]+_)*v(?:" + "|".join(map(str, rules)) + ")_")
    files = [p for folder in FOLDERS for p in sorted((ROOT / "tests" / folder).glob("test_*.py"))]
    return [
        path.relative_to(ROOT).as_posix()
        for path in files
        if wanted.search(path.read_text("utf-8"))
    ]


def run(tree: Path, rules: list[int], *options: str, limit: float) -> Outcome:
    """Run the tests of these rules in a copy of the tree."""
    report = tree / "report.xml"
    selected = " or ".join(f"_v{rule}_" for rule in rules)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    # The second is for a test that hangs in foreign code, and ends the run.
    command += [f"--timeout={TEST_LIMIT}", "-o", f"faulthandler_timeout={2 * TEST_LIMIT}"]
    command += [f"--junitxml={report}", "-k", selected, *files_of(rules)]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=os.environ | {"PYTHONPATH": str(tree), "PGREPL_REQUIRE_EXT": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return Outcome(Counter(), [], 0, f"not at an end after {limit} s")
    ran: Counter[int] = Counter()
    failed = []
    if done.returncode < 0:
        failed.append(f"signal {-done.returncode}")  # an edit of C may well end in one
    for case in ElementTree.parse(report).iter("testcase") if report.exists() else ():
        if case.find("skipped") is None:
            ran.update(rules_of(case.get("name", "")))
        for trouble in (*case.iter("failure"), *case.iter("error")):
            test = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
            failed.append(f"{test[:90]}  {trouble.get('message', '').splitlines()[0][:70]}")
    return Outcome(ran, failed, done.returncode, done.stdout)


def build(tree: Path) -> str:
    """Compile what has changed, and return what the compiler has to say where it fails."""
    setup = tree / "setup.py"
    setup.write_text(setup.read_text("utf-8").replace('"-O3"', '"-O0"'), "utf-8")
    command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    environment = os.environ | {"PGREPL_REQUIRE_EXT": "1"}
    done = subprocess.run(
        command,
        cwd=tree,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=EDIT_LIMIT,
    )
    return done.stdout if done.returncode else ""


def without(edit: Edit) -> tuple[str, str]:
    """Make an edit, and return the line of the table with what becomes of it; and what is wrong."""
    with tempfile.TemporaryDirectory(prefix="pgrepl-rules-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        edit.apply(tree)
        trouble = build(tree) if edit.needs_a_build else ""
        if trouble:
            outcome = Outcome(Counter(), [], 0, trouble)
        else:
            outcome = run(tree, [edit.rule], "-x", limit=EDIT_LIMIT)
    line = f"V{edit.rule:<3} {edit.what:70} {outcome.ran[edit.rule]:4}  "
    # Any other status says that no test was run to its end, and proves nothing.
    proved = outcome.failed and (outcome.status == TESTS_FAILED or outcome.status < 0)
    if proved and not NO_PROOF.search(outcome.failed[0]):
        return line + outcome.failed[0], ""
    return line + "NOTHING HAS FAILED", outcome.output[-2000:]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.rules", description=__doc__)
    parser.add_argument("rule", nargs="*", type=int, help="the numbers of rules")
    parser.add_argument("--jobs", type=int, default=2, help="edits at a time")
    arguments = parser.parse_args()
    edits = [edit for edit in EDITS if not arguments.rule or edit.rule in arguments.rule]
    try:
        for edit in edits:
            edit.apply(ROOT, write=False)
    except StaleEdit as error:
        print(error, file=sys.stderr)
        return 2
    rules = sorted({edit.rule for edit in edits})
    with tempfile.TemporaryDirectory(prefix="pgrepl-rules-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(ROOT, tree, ignore=LEFT_OUT)
        outcome = run(tree, rules, limit=WHOLE_LIMIT)
    tests = ", ".join(f"V{rule}: {outcome.ran[rule]}" for rule in rules)
    print(f"tests by rule, with nothing taken out: {tests}", flush=True)
    if outcome.status or not all(outcome.ran[rule] for rule in rules):
        print(outcome.output[-4000:], file=sys.stderr)
        return 1
    print(f"{'rule':4} {'what is taken out':70} {'run':>4}  the first test that has failed")
    unproved = 0
    with ThreadPoolExecutor(arguments.jobs) as pool:
        for line, trouble in pool.map(without, edits):
            print(line, flush=True)
            if trouble:
                unproved += 1
                print(trouble, file=sys.stderr, flush=True)
    print(f"{len(edits)} edits, {unproved} that no test has noticed")
    return 1 if unproved else 0


if __name__ == "__main__":
    sys.exit(main())
