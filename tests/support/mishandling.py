"""Does with every class of the native twin what nobody should: run as a program, by a test.

    python -m tests.support.mishandling

It gets hold of instances in each way that Python has, initialised or not, and then reads every
attribute and calls every method of them with whatever comes to mind. What is raised does not
matter; what matters is that the process lives. It prints how many classes, instances and calls
there were.
"""

from __future__ import annotations

import contextlib
import copy
import copyreg
import faulthandler
import gc
import importlib
import operator
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Final

from pgrepl.blocking.stream import Transaction
from pgrepl.codec import _native
from pgrepl.lsn import Lsn
from pgrepl.messages import Begin, Column, Commit, Relation
from pgrepl.session.received import ReceivedTransaction
from tests.support.spooling import ITEM, XID, batch_of, block_of, commit

ARGUMENTS: Final[tuple[tuple[Any, ...], ...]] = (
    (),
    (0,),
    (-1,),
    (900,),
    (1 << 70,),
    ("id",),
    (b"\x00\x01",),
    (None,),
    (ITEM,),
    ({},),
    (0, 0),
    (ITEM, [1]),
    (ITEM, [1], True),
    (1, 2, False),
    (1, 2, 3, b"data"),
)

UNARY: Final[tuple[Callable[[Any], Any], ...]] = (
    repr,
    str,
    bytes,
    hash,
    len,
    list,
    iter,
    next,
    bool,
    memoryview,
    copy.copy,
    copy.deepcopy,
    gc.get_referents,
    lambda each: each == each,
    lambda each: each != copy.copy(each),
    lambda each: operator.index(each),
    lambda each: each[0],
    lambda each: each[900],
    lambda each: each["id"],
    lambda each: each[:],
    lambda each: 0 in each,
    lambda each: each.__reduce_ex__(2),
    lambda each: each.__reduce_ex__(4),
    lambda each: each.__setstate_cython__((1, 2, 3, 4, 5, 6)),
    lambda each: each.__setstate__((1, 2, 3, 4, 5, 6)),
)

# Which of them may leave an instance in a state that others are not in.
_LAST: Final = frozenset({"__init__", "release", "__setstate_cython__", "__setstate__"})


def modules() -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(_native.__path__):
        yield importlib.import_module(f"{_native.__name__}.{found.name}")


def classes() -> list[type]:
    """Every extension type of the twin, those that it does not export too."""
    found = {
        each
        for module in modules()
        for each in vars(module).values()
        if isinstance(each, type) and _is_extension(each)
    }
    return sorted(found, key=lambda each: each.__qualname__)


def _is_extension(cls: type) -> bool:
    # Of the public ones the module is the one that users import them from.
    is_made_by_python = cls.__flags__ & 1 << 9
    return not is_made_by_python and cls.__module__.startswith("pgrepl")


def whole() -> Iterator[Any]:
    """An instance of each class as the package makes it, those within others included."""
    from pgrepl.codec.spool import Spool

    spool, decoder = Spool(), _native.Decoder(3, "on", types={16: bool})
    yield decoder
    changes = decoder.decode_batch(batch_of(_native, [*block_of(3), commit(XID)]), spool)
    yield changes
    list(changes)
    yield from (stored.writer for stored in spool._known.values())
    yield changes.of_transaction()
    kept = changes.streamed(XID).keep()
    yield from (kept, iter(kept))
    replay = iter(kept)
    change: Any = next(replay)
    row = change.new
    row["id"]
    yield from (row, replay)
    received = ReceivedTransaction("commit", None, None, None)
    mould = _native.Mould(received, Transaction(received, None), None, None, lambda *_: iter(()))
    messages = (Begin(Lsn(1), 0, 1), Commit(Lsn(1), Lsn(2), 0))
    assert _native.Decoder().decode_batch(batch_of(_native, messages)).begin(mould) is not None
    yield from (mould, mould.received.run, _native.ready(1), _native.ready(None))
    batch = batch_of(_native, block_of(3))
    yield from (batch, iter(batch), batch[0], _native.WalBatch(), iter(_native.WalBatch()))
    yield from (_native.PrimaryKeepalive(1, 2, True), _native.XLogData(1, 2, 3, b"data"))
    yield from (_native.Row(ITEM, [1]), _native.Row(ITEM, [1], key_only=True))
    reader = _native.FrameReader()
    yield from (reader, reader.get_buffer(), batch.wal_start)
    types = _native.Types({600: str})
    yield from (types, types.lookup(23), types.lookup(600))


def made(cls: type) -> Iterator[Any]:
    """What comes of making an instance in every way but the right one."""
    ways: tuple[Callable[..., Any], ...] = (
        cls,
        lambda *given: cls.__new__(cls, *given),
        lambda *given: object.__new__(cls),
        lambda *given: copyreg.__newobj__(cls, *given),  # type: ignore[attr-defined]
        lambda *given: copyreg._reconstructor(cls, object, None),  # type: ignore[attr-defined]
    )
    for way in ways:
        for given in ARGUMENTS:
            with contextlib.suppress(Exception):
                yield way(*given)


def parts(instance: Any) -> Iterator[Any]:
    """What the collector tells an instance consists of, and what of that is the twin's."""
    for part in gc.get_referents(instance):
        if _is_extension(type(part)):
            yield part


def mishandle(instance: Any) -> int:
    """Do everything with an instance; return how much that was."""
    count = 0
    for act in UNARY:
        count += 1
        with contextlib.suppress(Exception):
            act(instance)
    for name in sorted(dir(instance), key=lambda name: (name in _LAST, name)):
        if name in ("__class__", "__init_subclass__", "__subclasshook__", "__dir__"):
            continue
        with contextlib.suppress(Exception):
            attribute = getattr(instance, name)
            for given in ARGUMENTS:
                count += 1
                with contextlib.suppress(Exception):
                    result = attribute(*given)
                    repr(result)
        with contextlib.suppress(Exception):
            setattr(instance, name, None)
    return count


def call_on_others(cls: type) -> int:
    """Call every method of a class on what is no instance of it; return how many calls that were.

    Each must be refused for what it is called on, which is looked at before all else.
    """
    count = 0
    for name, method in vars(cls).items():
        if not callable(method) or isinstance(method, type) or name == "__new__":
            continue
        for other in (1, object(), None, [], b"bytes", cls):
            for given in ARGUMENTS:
                count += 1
                try:
                    method(other, *given)
                except TypeError:
                    continue
                raise AssertionError(f"{cls.__qualname__}.{name} took {other!r} for itself")
    return count


class _Growing:
    """A relation whose columns are a list, as nothing checked once."""

    columns: list[Column]

    def __init__(self) -> None:
        self.columns = [Column("id", 23, -1, True)]
        self.key_columns = tuple(self.columns)


def grown() -> Iterator[Any]:
    """Rows of a relation that has grown since."""
    columns = [Column("id", 23, -1, True)]
    relation = Relation(1, "s", "t", "d", columns)  # type: ignore[arg-type]
    yield _native.Row(relation, [1], key_only=True)
    columns += [Column("note", 25, -1, True)] * 1000
    for given in (relation, _Growing()):
        with contextlib.suppress(Exception):
            yield _native.Row(given, [1], key_only=True)  # type: ignore[arg-type]


def nested() -> Iterator[Any]:
    """A row in a row, deeper than any stack."""
    row = _native.Row(ITEM, [1])
    for _ in range(200_000):
        row = _native.Row(ITEM, [row])
    yield row


def written_to() -> Iterator[Any]:
    """A batch whose bytes somebody writes to who kept the view that a driver gets."""
    reader = _native.FrameReader()
    room = reader.get_buffer()
    sent = b"".join(b"d" + (29).to_bytes(4, "big") + b"w" + bytes(24) for _ in range(20))
    room[: len(sent)] = sent
    reader.buffer_updated(len(sent))
    batch = _native.next_batch(reader)
    room[: len(sent)] = b"\x7f" * len(sent)
    yield batch
    assert batch is not None
    yield from (batch.tail(index) for index in range(20))


def main() -> None:
    faulthandler.enable()
    found = classes()
    count = sum(map(call_on_others, found))
    instances = 0
    for source in (whole, grown, nested, written_to, *(lambda c=c: made(c) for c in found)):
        # All of them first: what is done to one is nothing that others are made of.
        for instance in list(source()):
            for each in (*parts(instance), instance):
                instances += 1
                count += mishandle(each)
    print(len(found), instances, count)


if __name__ == "__main__":
    main()
