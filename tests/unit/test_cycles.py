"""What a decoder makes, and the decoder itself, can be part of a cycle: an application keeps it and
it leads back to the application by a function that decodes a type. On both twins the collector
finds that, or each reconnection would leave something behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from pgrepl.codec import Row
from pgrepl.codec.spool import Spool
from pgrepl.messages import Column, Delete, Insert, Relation, StreamStart, StreamStop, Update
from tests.support.pgoutput_encoder import encode
from tests.support.spooling import XID, batch_of, commit

POINTS = Relation(
    16400, "public", "place", "f", (Column("id", 23, -1, True), Column("at", 600, -1, False))
)
TAGS = replace(POINTS, columns=(Column("id", 23, -1, True), Column("tags", 1009, -1, False)))
ROW = Row(POINTS, ("1", "(1,2)"))


class App:
    """Keeps what comes, and decodes points."""

    def __init__(self, codec: Any) -> None:
        self.codec = codec
        self.decoder = codec.Decoder(3, "on", types={600: self.point})
        self.kept: Any = None

    def point(self, text: str) -> Any:
        return self

    def fed(self, *messages: Any) -> Any:
        for message in messages:
            self.kept = self.decoder.feed(encode(message))
        return self.kept


def an_insert(app: App) -> Any:
    return app.fed(POINTS, Insert(POINTS, ROW))


def an_update(app: App) -> Any:
    return app.fed(POINTS, Update(POINTS, None, ROW, ROW))


def a_delete(app: App) -> Any:
    return app.fed(POINTS, Delete(POINTS, None, ROW))


def a_row(app: App) -> Any:
    return app.fed(POINTS, Insert(POINTS, ROW)).new


def a_row_that_was_read(app: App) -> Any:
    row = a_row(app)
    assert row["at"] is app
    return row


def a_key(app: App) -> Any:
    key = Row(POINTS, ("1",), key_only=True)
    return app.fed(POINTS, Delete(POINTS, key, None)).key


def a_row_of_values(app: App) -> Any:
    return app.codec.Row(POINTS, (1, app))


def a_list_in_a_row(app: App) -> Any:
    """No function of the application's, and a value that can be changed."""
    decoder = app.codec.Decoder()
    decoder.feed(encode(TAGS))
    row = decoder.feed(encode(Insert(TAGS, Row(TAGS, ("1", "{a}"))))).new
    row["tags"].append(app)
    return row


def types(app: App) -> Any:
    return app.codec.Types({600: app.point})


def a_type(app: App) -> Any:
    return types(app).lookup(600)


def changes(app: App) -> Any:
    return app.decoder.decode_batch(batch_of(app.codec, [POINTS, Insert(POINTS, ROW)]))


def changes_of_a_transaction(app: App) -> Any:
    return changes(app).of_transaction()


def a_replay(app: App) -> Any:
    block: list[Any] = [replace(POINTS, xid=XID), Insert(POINTS, ROW, XID)]
    spool = Spool()
    found = app.decoder.decode_batch(
        batch_of(app.codec, [StreamStart(XID, True), *block, StreamStop(), commit(XID)]), spool
    )
    list(found)
    return found.streamed(XID)


def a_block_that_is_put_aside(app: App) -> Any:
    block: list[Any] = [replace(POINTS, xid=XID), Insert(POINTS, ROW, XID)]
    spool = Spool()
    list(app.decoder.decode_batch(batch_of(app.codec, [StreamStart(XID, True), *block]), spool))
    return spool


KEPT: tuple[Callable[[App], Any], ...] = (
    lambda app: app.decoder,
    an_insert,
    an_update,
    a_delete,
    a_row,
    a_row_that_was_read,
    a_key,
    a_row_of_values,
    a_list_in_a_row,
    types,
    a_type,
    changes,
    changes_of_a_transaction,
    a_replay,
    a_block_that_is_put_aside,
)


@pytest.mark.parametrize("keep", KEPT, ids=lambda keep: keep.__name__)
def test_what_an_application_keeps_goes_with_it(codec: Any, keep: Callable[[App], Any]) -> None:
    app = App(codec)
    app.kept = keep(app)
    gone = weakref.ref(app)
    gc.collect()
    assert gone() is app
    del app
    gc.collect()
    assert gone() is None


def test_rows_that_lead_nowhere_are_none_of_the_collectors_business(codec: Any) -> None:
    """A batch of them would be looked through again and again."""
    if codec.__name__.endswith("_pure"):
        pytest.skip("all objects of Python's own are")
    decoder = codec.Decoder()
    plain = replace(POINTS, columns=POINTS.columns[:1])
    decoder.feed(encode(plain))
    insert = decoder.feed(encode(Insert(plain, Row(plain, ("1",)))))
    insert.new.astuple()
    assert not gc.is_tracked(insert)
    assert not gc.is_tracked(insert.new)
