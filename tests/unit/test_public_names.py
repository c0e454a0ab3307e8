"""What users see of a name: where it is imported from, and what tools make of that."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import io
import pydoc
import re
import subprocess
import sys
import traceback
import typing
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.moved import NAMES

FACADES: Final = (
    "pgrepl",
    "pgrepl.aio",
    "pgrepl.basebackup",
    "pgrepl.doctor",
    "pgrepl.physical",
    "pgrepl.testing",
)
PUBLIC: Final = {
    f"{facade}.{name}": (facade, name)
    for facade in FACADES
    for name in importlib.import_module(facade).__all__
    if not name.startswith("__")
}
every_name = pytest.mark.parametrize(("facade", "name"), PUBLIC.values(), ids=PUBLIC)
every_facade = pytest.mark.parametrize("facade", FACADES)

#: Unions of classes, and a value: what they are made of is said in `typing` and by their class.
ALIASES: Final = {"BackupEvent", "Change", "UNCHANGED"}
#: Annotated with a name that is imported for type checkers alone: the server's module is that of
#: its databases' maker, and imports theirs.
UNRESOLVED: Final = {"pgrepl.testing.database.TemporaryDatabase.__init__"}


def found(facade: str, name: str) -> Any:
    return getattr(importlib.import_module(facade), name)


@every_name
def test_a_name_says_where_it_is_imported_from(facade: str, name: str) -> None:
    thing = found(facade, name)
    if name in ALIASES:
        return
    # AsyncConnection has two places: the first one is what it says.
    place = "pgrepl" if name in pgrepl.__all__ and facade != "pgrepl.aio" else facade
    place = "pgrepl" if name == "AsyncConnection" else place
    assert (thing.__module__, thing.__qualname__) == (place, name)
    assert getattr(importlib.import_module(place), name) is thing
    if inspect.isclass(thing) and not issubclass(thing, enum.Enum):
        assert repr(thing) == f"<class '{place}.{name}'>"


@pytest.mark.parametrize(
    "name", ["Decoder", "PrimaryKeepalive", "Row", "WalBatch", "XLogData"], ids=str
)
def test_the_twin_that_is_not_in_use_says_where_it_is(codec: ModuleType, name: str) -> None:
    twin = getattr(codec, name)
    assert (twin is getattr(pgrepl, name)) == (twin.__module__ == "pgrepl")
    if twin.__module__ != "pgrepl":
        assert getattr(importlib.import_module(twin.__module__), name) is twin


def functions_of(thing: Any) -> list[Any]:
    """The functions of a class and of its bases, properties' included; none of anything else."""
    found: list[Any] = []
    for each in thing.__mro__ if inspect.isclass(thing) else ():
        if each.__module__.partition(".")[0] == "pgrepl":
            for value in vars(each).values():
                value = value.fget if isinstance(value, property) else value
                value = getattr(value, "__func__", value)
                found += [value] if inspect.isfunction(value) else []
    return found


@every_name
def test_annotations_can_be_looked_up(facade: str, name: str) -> None:
    thing = found(facade, name)
    if name in ALIASES:
        return
    typing.get_type_hints(thing)
    for function in functions_of(thing):
        if f"{function.__module__}.{function.__qualname__}" not in UNRESOLVED:
            typing.get_type_hints(function)
    if inspect.isclass(thing):
        for method in vars(thing).values():
            if inspect.isfunction(method) and method.__name__ == "__init__":
                inspect.signature(method)


def test_types_of_fields_are_what_is_written() -> None:
    assert typing.get_type_hints(pgrepl.Begin) == {
        "final_lsn": pgrepl.Lsn,
        "commit_time": int,
        "xid": int,
    }
    assert typing.get_type_hints(pgrepl.Idle)["token"] is pgrepl.ResumeToken
    assert typing.get_type_hints(pgrepl.StreamEvent)["lsn"] is int
    assert typing.get_type_hints(pgrepl.basebackup.BackupOptions)["wal"] == bool | None


@every_name
def test_functions_and_methods_have_their_source(facade: str, name: str) -> None:
    thing = found(facade, name)
    if inspect.isfunction(thing):
        assert f"def {name}(" in inspect.getsource(thing)
    elif inspect.isclass(thing):
        for method in vars(thing).values():
            # What a dataclass makes has no source.
            if inspect.isfunction(method) and not method.__name__.startswith("__"):
                assert f"def {method.__name__}(" in inspect.getsource(method)


def test_a_traceback_names_what_to_catch() -> None:
    error = pgrepl.SlotNotFound({"sqlstate": "42704", "message": "it is not there"})
    (line,) = traceback.format_exception_only(error)
    assert line == "pgrepl.SlotNotFound: ERROR 42704: it is not there\n"


@every_facade
def test_help_shows_every_name(facade: str) -> None:
    module = importlib.import_module(facade)
    with redirect_stdout(io.StringIO()) as shown:
        pydoc.Helper(output=shown).help(module)
    for name in {*module.__all__} - {"__version__"}:  # which has a heading of its own
        assert name in shown.getvalue()


def listed(facade: str) -> tuple[set[str], set[str], dict[str, str]]:
    """``__all__``, and what type checkers and Python take the names from: of the source."""
    module = importlib.import_module(facade)
    source = Path(typing.cast(str, module.__file__)).read_text()
    imported: dict[str, str] = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            for each in ast.walk(statement):
                if isinstance(each, ast.ImportFrom):
                    place = "." * each.level + (each.module or "")
                    imported |= {alias.asname or alias.name: place for alias in each.names}
    return set(module.__all__), set(vars(module)["_NAMES"]), imported


@every_facade
def test_what_python_and_type_checkers_see_is_the_same(facade: str) -> None:
    public, loaded, imported = listed(facade)
    rooms = {name for name, place in imported.items() if place == "."}
    moved = NAMES if facade == "pgrepl" else {}
    assert loaded == public - {"__version__"}
    assert set(imported) - rooms == loaded | set(moved)
    module = importlib.import_module(facade)
    for name, place in vars(module)["_NAMES"].items():
        assert imported[name] == place.partition(":")[0], name
    for name, place in moved.items():
        assert f"pgrepl{imported[name]}" == place, name
    for room in rooms:
        assert room in dir(module)


@every_facade
def test_everything_can_be_imported_by_a_star(facade: str) -> None:
    into: dict[str, Any] = {}
    exec(f"from {facade} import *", into)
    assert set(importlib.import_module(facade).__all__) <= set(into)


@every_facade
def test_a_name_becomes_an_attribute_and_stays_the_same(facade: str) -> None:
    module = importlib.import_module(facade)
    for name in vars(module)["_NAMES"]:
        assert getattr(module, name) is vars(module)[name]
        assert name in dir(module)


@every_facade
def test_what_is_listed_is_public(facade: str) -> None:
    module = importlib.import_module(facade)
    _, _, imported = listed(facade)
    rooms = {name for name, place in imported.items() if place == "."}
    assert {name for name in dir(module) if name[:2] != "__"} == rooms | {
        name for name in module.__all__ if name[:2] != "__"
    }
    assert {"__doc__", "__name__", "__path__", *module.__all__} <= set(dir(module))


def test_help_says_where_to_start() -> None:
    places = [each for each in re.findall(r"`([\w.]+)`", pgrepl.__doc__ or "") if each != "Error"]
    assert places[:2] == ["connect", "AsyncConnection.connect"]
    for place in places:
        thing: Any = pgrepl
        for name in place.removeprefix("pgrepl.").split("."):
            thing = getattr(thing, name)
    rooms = {each.split(".")[1] for each in places if each.startswith("pgrepl.")}
    assert rooms == {"physical", "basebackup", "doctor", "testing"}


@every_facade
def test_what_is_no_name_is_an_attribute_error(facade: str) -> None:
    module = importlib.import_module(facade)
    with pytest.raises(AttributeError, match=f"module '{facade}' has no attribute 'conect'") as got:
        _ = module.conect
    assert (got.value.name, got.value.obj) == ("conect", module)
    assert not hasattr(module, "__wrapped__")


THREADS: Final = """
import sys, threading
sys.setswitchinterval(1e-6)
import pgrepl
barrier, found, failed = threading.Barrier(16), [], []

def load(names):
    barrier.wait()
    try:
        found.append({name: getattr(pgrepl, name) for name in names})
    except BaseException as error:
        failed.append(error)

names = pgrepl.__all__
orders = [names[i:] + names[:i] for i in range(0, 80, 10)]
threads = [threading.Thread(target=load, args=[o]) for o in orders + [o[::-1] for o in orders]]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert not failed, failed
assert all(each == found[0] for each in found) and len(found) == 16
"""


def test_names_may_be_used_first_by_many_threads_at_once() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", THREADS], check=True, timeout=100)
