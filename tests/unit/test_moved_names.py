"""Names, modules and pickles from before a move: they go on for a version."""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Final

import pytest

import pgrepl
from pgrepl import moved
from pgrepl.codec import _pure
from tests.support import pickled

#: A line each: what it is, the name of its class and the pickle, as versions up to 0.1 wrote it.
OLD: Final = {
    (kind, name): base64.b64decode(text)
    for kind, name, text in (
        line.split()
        for line in (Path(__file__).parent / "old_pickles.txt").read_text().splitlines()
    )
}


def kept(*kinds: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("kind", "name"), [key for key in OLD if key[0] in kinds])


def loaded(pickle_: bytes) -> Any:
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        return pickle.loads(pickle_)


def _native() -> Any:
    return pytest.importorskip("pgrepl.codec._native", reason="no C core here")


@kept("class")
def test_an_old_pickle_of_a_class_loads(kind: str, name: str) -> None:
    if b"codec._native" in OLD[kind, name]:
        _native()
    thing = loaded(OLD[kind, name])
    assert thing.__name__ == name
    place = importlib.import_module(thing.__module__)
    # The twin that is not in use has its own.
    assert getattr(place, name) is thing


@kept("c", "python")
def test_an_old_pickle_of_a_value_loads(kind: str, name: str) -> None:
    codec = _native() if kind == "c" and b"codec._native" in OLD[kind, name] else _pure
    assert pickled.same(loaded(OLD[kind, name]), pickled.values(codec)[name])


@kept("error")
def test_an_old_pickle_of_an_error_loads(kind: str, name: str) -> None:
    assert pickled.same(loaded(OLD[kind, name]), pickled.errors()[name])


def test_every_class_that_can_be_pickled_has_an_old_pickle() -> None:
    samples = {*pickled.values(_pure), *pickled.errors()}
    assert samples == {name for kind, name in OLD if kind in ("c", "error")}


def modules_named(pickle_: bytes) -> set[str]:
    """Which modules a pickle asks for."""
    named: set[str] = set()

    class Noting(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            named.add(f"{module}.{name}")
            return super().find_class(module, name)

    Noting(io.BytesIO(pickle_)).load()
    return named


#: By which pickles are made again, and which nobody sees.
MAKERS: Final = {"pgrepl.errors._restore", "pgrepl.values._composite"}


@pytest.mark.parametrize("protocol", [2, pickle.HIGHEST_PROTOCOL])
def test_new_pickles_name_public_places_alone(protocol: int) -> None:
    samples = pickled.values(importlib.import_module("pgrepl.codec")) | pickled.errors()
    for name, sample in samples.items():
        written = pickle.dumps(sample, protocol)
        assert pickled.same(pickle.loads(written), sample), name
        ours = {each for each in modules_named(written) if each.startswith("pgrepl")} - MAKERS
        for each in ours:
            module, _, attribute = each.rpartition(".")
            assert module in ("pgrepl", "pgrepl.basebackup", "pgrepl.physical"), each
            assert attribute in importlib.import_module(module).__all__


READ: Final = """
import pickle, sys
row, message = pickle.loads(sys.stdin.buffer.read())
assert (list(row), row.lsn, bytes(message)) == ([1, "a"], 9, b"data"), row
assert type(row).__module__ == "pgrepl"
"""
WRITE: Final = """
import pickle, sys, pgrepl, pgrepl.codec
from tests.support import pickled
values = pickled.values(pgrepl.codec)
sys.stdout.buffer.write(pickle.dumps([values["Row"], values["XLogData"]]))
"""


@pytest.mark.parametrize(("writes", "reads"), [("c", "python"), ("python", "c")])
def test_what_one_twin_has_pickled_the_other_one_loads(writes: str, reads: str) -> None:
    _native()
    pickle_ = b""
    for code, twin in ((WRITE, writes), (READ, reads)):
        pickle_ = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PGREPL_IMPL": twin},
            input=pickle_,
            check=True,
            stdout=subprocess.PIPE,
        ).stdout


@pytest.mark.parametrize("name", moved.NAMES)
def test_a_name_that_moved_goes_on_and_says_where_it_is(name: str) -> None:
    place = moved.NAMES[name]
    with pytest.warns(DeprecationWarning, match=f"pgrepl.{name} is {place}.{name} now") as got:
        thing = getattr(pgrepl, name)
    assert [each.filename for each in got] == [__file__]
    assert thing is getattr(importlib.import_module(place), name)
    assert name not in pgrepl.__all__
    assert name not in dir(pgrepl)


@pytest.mark.parametrize(
    ("module", "name"), [(m, name) for m, names in moved.MODULES.items() for name in names]
)
def test_a_module_that_moved_goes_on_and_says_where_its_names_are(module: str, name: str) -> None:
    old = importlib.import_module(f"pgrepl.{module}")
    assert getattr(pgrepl, module) is old
    place = moved.NAMES.get(name, "pgrepl")
    with pytest.warns(DeprecationWarning, match=f"{module}.{name} is {place}.{name} now") as got:
        thing = getattr(old, name)
    assert [each.filename for each in got] == [__file__]
    assert thing is getattr(importlib.import_module(place), name)
    with pytest.raises(
        AttributeError, match=f"module 'pgrepl.{module}' has no attribute 'nothing'"
    ):
        _ = old.nothing
    # Tools ask all modules for such things, and are to load nothing by it.
    assert not hasattr(old, "__file__")
    spec = importlib.util.find_spec(f"pgrepl.{module}")
    assert spec is not None and spec.name == f"pgrepl.{module}"
    assert f"`{place}.{name}`" in (old.__doc__ or "")


def test_modules_that_moved_load_nothing_until_they_are_asked() -> None:
    code = "import sys, pgrepl.token, pgrepl.aio_stream; assert 'pgrepl.resume' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
