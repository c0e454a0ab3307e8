"""pgrepl's works: ``Decoder.feed`` of each payload, and what is then read of the row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from ..tables import Table
from .work import Loop, Work

_Feed: TypeAlias = Callable[[bytes], Any]


def _unread(feed: _Feed, table: Table, payloads: Iterable[bytes]) -> Any:
    made = None
    for payload in payloads:
        made = feed(payload)
    return made


def _typed(feed: _Feed, table: Table, payloads: Iterable[bytes]) -> Any:
    made = None
    for payload in payloads:
        made = feed(payload).new.astuple()
    return made


def _as_dictionary(feed: _Feed, table: Table, payloads: Iterable[bytes]) -> Any:
    made = None
    for payload in payloads:
        made = feed(payload).new.asdict()
    return made


def _named(feed: _Feed, table: Table, payloads: Iterable[bytes]) -> Any:
    first, last = table.names[0], table.names[-1]
    made: Any = None
    for payload in payloads:
        row = feed(payload).new
        made = row[first], row[last]
    return made


def _work(
    loop: Callable[[_Feed, Table, Iterable[bytes]], Any],
    seen: Callable[[Any, Table], Sequence[Any]],
    expected: Callable[[Table, int], Sequence[Any]] = Table.values,
) -> Work:
    def start(relation: bytes, table: Table, form: str) -> Loop:
        # A peer's process has no use for pgrepl.
        from pgrepl import Decoder

        feed = Decoder(1).feed
        feed(relation)
        return partial(loop, feed, table)

    return Work(start, expected, seen)


def _first_and_last(table: Table, row_id: int) -> tuple[Any, Any]:
    values = table.values(row_id)
    return values[0], values[-1]


PGREPL: Final[dict[str, Work]] = {
    "pgrepl-unread": _work(_unread, lambda made, table: made.new.astuple()),
    "pgrepl-typed": _work(_typed, lambda made, table: made),
    "pgrepl-asdict": _work(_as_dictionary, lambda made, table: [made[n] for n in table.names]),
    "pgrepl-named": _work(_named, lambda made, table: made, _first_and_last),
}
