"""Full-text search: tsvector and tsquery as the text that the server writes.

How the functions behave is told in scalars.py.

Source: PostgreSQL documentation, "Text Search Types"; the binary forms are those of the types' send
functions.
"""

from __future__ import annotations

import struct
from typing import Final

from .fields import Fields

_U16: Final = struct.Struct(">H")
_OPERAND: Final = struct.Struct(">BB")

_WEIGHTS: Final = ("", "C", "B", "A")  # of a position; D, the usual one, is not written


def _quoted(word: bytes) -> str:
    text = word.decode().replace("\\", "\\\\").replace("'", "''")
    return f"'{text}'"


def tsvector_binary(data: bytes) -> str:
    fields = Fields("tsvector", data)
    lexemes = []
    for _ in range(fields.count(3, "lexemes")):
        lexeme = _quoted(fields.cstr())
        count = fields.take(_U16)[0]
        positions = []
        for _ in range(count):
            position = fields.take(_U16)[0]
            positions.append(f"{position & 0x3FFF}{_WEIGHTS[position >> 14]}")
        lexemes.append(f"{lexeme}:{','.join(positions)}" if positions else lexeme)
    fields.finish()
    return " ".join(lexemes)


_VALUE, _OPERATOR = 1, 2
_NOT, _AND, _OR, _PHRASE = 1, 2, 3, 4
_PRIORITY: Final = {_NOT: 4, _AND: 2, _OR: 1, _PHRASE: 3}
_ANY_PRIORITY = 0


class _Item:
    """An operand or operator of a query, in the order of the wire: operators come first."""

    __slots__ = ("end", "operator", "text")

    def __init__(self, operator: int, text: str) -> None:
        self.operator = operator  # 0 for an operand
        self.text = text
        self.end = 0  # the index behind the item and all that it works on


def tsquery_binary(data: bytes) -> str:
    fields = Fields("tsquery", data)
    items = [_read_item(fields) for _ in range(fields.count(2, "items"))]
    fields.finish()
    if not items:
        return ""
    _find_ends(fields, items)
    return _infix(items)


def _read_item(fields: Fields) -> _Item:
    kind = fields.raw(1)[0]
    if kind == _VALUE:
        weights, prefix = fields.take(_OPERAND)
        if weights > 15 or prefix > 1:
            raise fields.error("weights of 0 to 15 and a prefix mark of 0 or 1", (weights, prefix))
        marks = "*" * prefix + "".join(
            letter for bit, letter in enumerate("ABCD") if weights & 8 >> bit
        )
        text = _quoted(fields.cstr())
        return _Item(0, f"{text}:{marks}" if marks else text)
    operator = fields.raw(1)[0]
    if kind != _OPERATOR or operator not in _PRIORITY:
        raise fields.error("an operand or an operator", f"kind {kind}, operator {operator}")
    if operator != _PHRASE:
        return _Item(operator, {_NOT: "!", _AND: " & ", _OR: " | "}[operator])
    distance = fields.take(_U16)[0]
    return _Item(operator, " <-> " if distance == 1 else f" <{distance}> ")


def _find_ends(fields: Fields, items: list[_Item]) -> None:
    """Find what belongs to each operator, from the back, where there are only operands."""
    starts: list[int] = []  # of what no operator has taken yet, the foremost last
    for index in reversed(range(len(items))):
        item = items[index]
        needed = 0 if not item.operator else 1 if item.operator == _NOT else 2
        if len(starts) < needed:
            raise fields.error("an operand for each side of an operator", "fewer")
        item.end = index + 1
        for _ in range(needed):
            item.end = items[starts.pop()].end
        starts.append(index)
    if len(starts) != 1:
        raise fields.error("operators between all operands", "fewer")


def _infix(items: list[_Item]) -> str:
    """Write the query as people do; without recursion, since a long one may nest deeply."""
    written: list[str] = []
    # Pieces of text, and items with the priority around them and whether they are what follows a
    # phrase operator; the next one is the last.
    todo: list[str | tuple[int, int, bool]] = [(0, _ANY_PRIORITY, False)]
    while todo:
        piece = todo.pop()
        if isinstance(piece, str):
            written.append(piece)
            continue
        index, around, follows_phrase = piece
        item = items[index]
        if not item.operator:
            written.append(item.text)
            continue
        priority = _PRIORITY[item.operator]
        is_phrase = item.operator == _PHRASE
        if priority < around or (is_phrase and follows_phrase):
            written.append("( ")
            todo.append(" )")
        if item.operator == _NOT:
            written.append(item.text)
            todo.append((index + 1, priority, False))
        else:
            # The right operand comes first on the wire, and is written last.
            todo.append((index + 1, priority, is_phrase))
            todo.append(item.text)
            todo.append((items[index + 1].end, priority, False))
    return "".join(written)
