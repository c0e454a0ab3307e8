"""Text that cannot do anything to a terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgrepl import Column, Relation, Row
from pgrepl.escapes import printable


@given(st.text())
def test_printable(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text


def test_names_look_alike_wherever_they_are_shown() -> None:
    name = "a\x1b[2J\u202e\n"
    relation = Relation(7, name, name, "d", (Column(name, 25, -1, True),))
    shown = r"a\x1b[2J\u202e\n"
    assert printable(name) == shown
    assert repr(relation).startswith(f"<Relation {shown}.{shown} ({shown}*) oid=7 ")
    assert repr(Row(relation, ["v"])) == f"<Row {shown}='v'>"
