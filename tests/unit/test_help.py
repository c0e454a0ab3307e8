"""What help() and an editor say of every public name: a docstring that says all, a signature."""

from __future__ import annotations

import enum
import importlib
import inspect
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

import pytest

import pgrepl
from pgrepl.codec import abc as contract

#: Of the codec: classes that a twin makes, by the stage that has them.
NATIVE: Final = {
    "Row": "rows",
    "XLogData": "wal",
    "PrimaryKeepalive": "wal",
    "WalBatch": "wal",
    "Decoder": "pgoutput",
    "Changes": "pgoutput",
    "FrameReader": "frames",
    "Replay": "spool",
}


def public(cls: Any) -> Iterator[tuple[str, Any]]:
    """The methods and properties of a class that this package has written."""
    for name in dir(cls):
        found = inspect.getattr_static(cls, name)
        plain = getattr(found, "__func__", found)
        if name.startswith("_") or not (
            inspect.isroutine(plain) or inspect.isdatadescriptor(plain)
        ):
            continue
        owner = next(each for each in cls.__mro__ if name in each.__dict__)
        if owner.__module__.startswith("pgrepl") and not inspect.ismemberdescriptor(plain):
            yield name, getattr(cls, name) if callable(plain) else plain


def says_all(documented: Any) -> bool:
    text = inspect.getdoc(documented) or ""
    return len(text) > 10 and "codec.abc" not in text and "see abc" not in text.lower()


@pytest.mark.parametrize("name", pgrepl.__all__)
def test_every_public_name_says_what_it_is(name: str) -> None:
    thing = getattr(pgrepl, name)
    if not callable(thing):
        return
    assert says_all(thing), name
    if inspect.isclass(thing):
        undocumented = [each for each, found in public(thing) if not says_all(found)]
        assert undocumented == []


@pytest.mark.parametrize("name", pgrepl.__all__)
def test_every_public_name_says_what_it_takes(name: str) -> None:
    thing = getattr(pgrepl, name)
    if not callable(thing) or isinstance(thing, enum.EnumType):
        return
    # What is raised takes a text, and a TypedDict its keys: what their base classes say of that.
    if not (inspect.isclass(thing) and issubclass(thing, BaseException | dict)):
        inspect.signature(thing)
    if inspect.isclass(thing) and not issubclass(thing, dict):
        for _, found in public(thing):
            if callable(found):
                inspect.signature(found)


@pytest.mark.parametrize("name", NATIVE)
def test_the_codecs_classes_are_what_the_contract_says(codec: ModuleType, name: str) -> None:
    cls = getattr(importlib.import_module(f"{codec.__name__}.{NATIVE[name]}"), name)
    promised = getattr(contract, name)
    assert inspect.getdoc(cls) == inspect.getdoc(promised)
    for each, found in public(promised):
        if callable(found):
            assert says_all(getattr(cls, each)), each
            assert parameters(getattr(cls, each)) == parameters(found), each
    if promised.__init__.__module__ == contract.__name__:
        assert parameters(cls) == parameters(promised.__init__)[1:]


def parameters(function: Any) -> list[tuple[str, Any]]:
    return [(each.name, each.default) for each in inspect.signature(function).parameters.values()]
