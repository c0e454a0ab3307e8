"""Values made of values: arrays, ranges, multiranges, composites, hstore.

How a part is decoded is its own type's affair, so a part that Python cannot hold is text inside of
a value that it can. Text that is not what the server writes is left as it came, as a whole.

Parts may be containers in turn. Text nests only as deep as the types say; binary names the types of
its parts itself, so there the depth is bounded, at `MAX_DEPTH`.

Source: PostgreSQL documentation, "Arrays", "Range Types", "Composite Types", "hstore".
"""

from __future__ import annotations

import functools
import itertools
import math
import re
import string
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from ...escapes import printable
from ...values import Array, Multirange, Range, composite_class
from .fields import Fields

__all__ = ["MAX_DEPTH", "ArrayForm", "CompositeForm", "MultirangeForm", "Part", "RangeForm"]
__all__ += ["RecordForm", "hstore_binary", "hstore_text"]

MAX_DEPTH = 32
"""How many containers may stand inside of each other in a binary value."""

_MAX_DIMENSIONS = 6

_U32: Final = struct.Struct(">I")
_DIMENSION: Final = struct.Struct(">ii")


class Part(Protocol):
    """What a container has to know of the type of its parts: a `ValueType`."""

    @property
    def oid(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def text(self) -> Callable[[bytes], Any]: ...
    def binary_at(self, data: bytes, depth: int) -> Any: ...


def _check_depth(name: str, depth: int) -> None:
    if depth >= MAX_DEPTH:
        raise ValueError(
            f"expected at most {MAX_DEPTH} values inside of each other, got one more "
            f"in a binary {name}"
        )


class _Malformed(Exception):
    """The text is not one that the server writes."""


# Between the braces of an array nothing needs quotes but these; the rest stands as it is.
_SIMPLE_ARRAY = re.compile(rb'\{[^{}"\\\s]+\}')
_BOUNDS = re.compile(rb"((?:\[-?[0-9]{1,10}:-?[0-9]{1,10}\]){1,6})=(?=\{)")
_BOUND = re.compile(rb"\[(-?[0-9]+):(-?[0-9]+)\]")
_UNESCAPE = re.compile(rb"\\(.)", re.DOTALL)


# What a type may have for a delimiter without making its arrays ambiguous.
_DELIMITERS: Final = frozenset(string.punctuation) - set('{}"\\')


@functools.cache  # of at most as many patterns as there are delimiters
def _tokens(delimiter: str) -> re.Pattern[bytes]:
    """Return what an array is made of: quoted elements, bare ones, and single marks."""
    mark = re.escape(delimiter)
    bare = rf"[^{{}}\"\\\s{mark}]++"
    return re.compile(rf'"((?:[^"\\]++|\\.)*+)"|({bare})|([{{}}{mark}])'.encode(), re.DOTALL)


class ArrayForm:
    """An array of one type of elements.

    The binary form names the type of the elements; `element_of` tells which that is here, and may
    refuse another one than expected with a `ValueError`. With a delimiter that cannot be told from
    what is around it, text is left as it came.
    """

    def __init__(self, element: Part, delimiter: str, element_of: Callable[[int], Part]) -> None:
        self._element = element
        self._tokens = _tokens(delimiter) if delimiter in _DELIMITERS else None
        self._delimiter = delimiter.encode() if self._tokens else b""
        self._sign = delimiter
        self._element_of = element_of
        self._name = f"{printable(element.name)}[]"

    def text(self, data: bytes) -> Any:
        if self._tokens is None:
            return data.decode()
        decode = self._element.text
        if _SIMPLE_ARRAY.fullmatch(data):
            items = data[1:-1].split(self._delimiter)
            if b"" in items:
                return data.decode()
            return self._array([None if item == b"NULL" else decode(item) for item in items])
        try:
            return self._general(data, self._tokens)
        except _Malformed:
            return data.decode()

    def _general(self, data: bytes, tokens: re.Pattern[bytes]) -> Array:
        """Read text with bounds, quotes or braces inside."""
        prefix = _BOUNDS.match(data)
        events = self._events(data, prefix.end() if prefix else 0, tokens)
        elements, sizes = self._nested(data, events)
        if prefix is None:
            return self._array(elements, (1,) * len(sizes))
        bounds = [(int(low), int(high)) for low, high in _BOUND.findall(prefix[1])]
        if [high - low + 1 for low, high in bounds] != sizes:
            raise _Malformed
        return self._array(elements, tuple(low for low, _ in bounds))

    def _nested(
        self, data: bytes, events: Iterator[tuple[bytes, Any]]
    ) -> tuple[list[Any], list[int]]:
        """Read nested braces; returns the elements and the size of each dimension."""
        opened: list[list[Any]] = []  # the lists that are not closed yet, outermost first
        sizes: dict[int, int] = {}  # by depth
        leaf_depth = 0
        for kind, value in events:
            if kind == b"{":
                if leaf_depth and len(opened) >= leaf_depth or len(opened) >= _MAX_DIMENSIONS:
                    raise _Malformed
                opened.append([])
            elif kind == b"}":
                depth, closed = len(opened), opened.pop()
                if sizes.setdefault(depth, len(closed)) != len(closed):
                    raise _Malformed
                if not opened:
                    break
                opened[-1].append(closed)
            else:
                leaf_depth = leaf_depth or len(opened)
                if len(opened) != leaf_depth:
                    raise _Malformed
                opened[-1].append(value)
        if not leaf_depth and data != b"{}":
            raise _Malformed
        return closed, [sizes[depth] for depth in range(1, leaf_depth + 1)]

    def _events(
        self, data: bytes, at: int, tokens: re.Pattern[bytes]
    ) -> Iterator[tuple[bytes, Any]]:
        """Yield braces and elements, having checked that delimiters stand between them.

        Ends behind the brace that closes the first one, which is the end of the text.
        """
        decode, delimiter = self._element.text, self._delimiter
        match = tokens.match
        depth, expect_item = 0, True
        while (token := match(data, at)) is not None:
            quoted, bare, mark = token.groups()
            at = token.end()
            if mark == b"}":
                # Only an array without elements closes where an item could stand.
                if expect_item and data[token.start() - 1 : at] != b"{}":
                    raise _Malformed
                depth -= 1
                if depth == 0 and at != len(data):
                    raise _Malformed
                expect_item = False
                yield mark, None
            elif mark == delimiter:
                if expect_item:
                    raise _Malformed
                expect_item = True
            elif not expect_item or (mark is None and not depth):
                raise _Malformed
            elif mark is not None:
                depth += 1
                yield mark, None
            else:
                expect_item = False
                if quoted is not None:
                    plain = _UNESCAPE.sub(rb"\1", quoted) if b"\\" in quoted else quoted
                    yield b"", decode(plain)
                else:
                    yield b"", None if bare == b"NULL" else decode(bare)
        raise _Malformed  # it breaks off, or something stands there that is nothing

    def binary(self, data: bytes, depth: int) -> Array:
        _check_depth(self._name, depth)
        fields = Fields(self._name, data)
        dimensions = fields.integer()
        if not 0 <= dimensions <= _MAX_DIMENSIONS:
            raise fields.error(f"0 to {_MAX_DIMENSIONS} dimensions", dimensions)
        flags = fields.integer()
        if flags not in (0, 1):
            raise fields.error("flags of 0 or 1", flags)
        element = self._element_of(fields.take(_U32)[0])
        sizes, lower_bounds = [], []
        for _ in range(dimensions):
            size, lower_bound = fields.take(_DIMENSION)
            sizes.append(size)
            lower_bounds.append(lower_bound)
        if any(size < 0 for size in sizes):
            raise fields.error("sizes of 0 or more", sizes)
        count = math.prod(sizes) if sizes else 0
        fields.require(count * 4, f"{count} elements")
        items: list[Any] = []
        for _ in range(count):
            value = fields.value()
            items.append(None if value is None else element.binary_at(value, depth + 1))
        fields.finish()
        for size in reversed(sizes[1:] if count else []):
            items = [items[at : at + size] for at in range(0, len(items), size)]
        return self._array(items, tuple(lower_bounds) if count else ())

    def _array(self, items: list[Any], lower_bounds: tuple[int, ...] | None = None) -> Array:
        return Array(items, lower_bounds, self._sign)


# A bound: in quotes, with `"` and `\` doubled; bare; or none.
_QUOTED_OR_BARE = rb'(?:"((?:[^"\\]++|""|\\.)*+)"|([^"\\,()\[\]\s]*+))'
_RANGE = re.compile(
    rb"([\[(])" + _QUOTED_OR_BARE + rb"," + _QUOTED_OR_BARE + rb"([\])])", re.DOTALL
)
_DOUBLED = re.compile(rb'""|\\.', re.DOTALL)


def _undoubled(quoted: bytes) -> bytes:
    return _DOUBLED.sub(lambda found: found[0][1:], quoted)


_EMPTY, _LOWER_INC, _UPPER_INC, _LOWER_INF, _UPPER_INF = 1, 2, 4, 8, 16


class RangeForm:
    """A range over one type of bounds."""

    def __init__(self, name: str, bound: Part) -> None:
        self._name = printable(name)
        self._bound = bound

    def text(self, data: bytes) -> Any:
        if data == b"empty":
            return Range(empty=True)
        match = _RANGE.fullmatch(data)
        if match is None:
            return data.decode()
        left, quoted_lower, bare_lower, quoted_upper, bare_upper, right = match.groups()
        lower = self._text_bound(quoted_lower, bare_lower)
        upper = self._text_bound(quoted_upper, bare_upper)
        return Range(lower, upper, (left + right).decode())

    def _text_bound(self, quoted: bytes | None, bare: bytes | None) -> Any:
        if quoted is not None:
            return self._bound.text(_undoubled(quoted))
        return self._bound.text(bare) if bare else None

    def binary(self, data: bytes, depth: int) -> Range:
        _check_depth(self._name, depth)
        fields = Fields(self._name, data)
        flags = fields.raw(1)[0]
        if flags > 31:
            raise fields.error("flags of 0 to 31", flags)
        if flags & _EMPTY:
            fields.finish()
            return Range(empty=True)
        lower = None if flags & _LOWER_INF else self._binary_bound(fields, depth)
        upper = None if flags & _UPPER_INF else self._binary_bound(fields, depth)
        fields.finish()
        left = "[" if flags & _LOWER_INC else "("
        return Range(lower, upper, left + ("]" if flags & _UPPER_INC else ")"))

    def _binary_bound(self, fields: Fields, depth: int) -> Any:
        value = fields.value()
        if value is None:
            raise fields.error("a bound", "NULL")
        return self._bound.binary_at(value, depth + 1)


class MultirangeForm:
    """A multirange of one type of ranges."""

    def __init__(self, name: str, ranges: Part) -> None:
        self._name = printable(name)
        self._ranges = ranges

    def text(self, data: bytes) -> Any:
        if data == b"{}":
            return Multirange()
        ranges = []
        at = 0
        for separator in itertools.chain([b"{"], itertools.repeat(b",")):
            if data[at : at + 1] != separator:
                break
            found = _RANGE.match(data, at + 1)
            if found is None:
                break
            ranges.append(found[0])
            at = found.end()
        if not ranges or data[at:] != b"}":
            return data.decode()
        return Multirange(map(self._ranges.text, ranges))

    def binary(self, data: bytes, depth: int) -> Multirange:
        _check_depth(self._name, depth)
        fields = Fields(self._name, data)
        ranges: list[Any] = []
        for _ in range(fields.count(5, "ranges")):
            value = fields.value()
            if value is None:
                raise fields.error("a range", "NULL")
            ranges.append(self._ranges.binary_at(value, depth + 1))
        fields.finish()
        return Multirange(ranges)


class RecordForm:
    """A composite of which nothing is known. Its text, which does not tell types, stays as it is.

    A binary one names the types of its fields, and `field_of` tells what those are here.
    """

    def __init__(self, field_of: Callable[[int], Part], name: str = "record") -> None:
        self._field_of = field_of
        self._name = printable(name)

    def binary(self, data: bytes, depth: int) -> tuple[Any, ...]:
        """Return the fields, each decoded as the type that the value names for it."""
        oids, values = self._fields(data, depth)
        return self._decoded(map(self._field_of, oids), values, depth)

    def _fields(self, data: bytes, depth: int) -> tuple[list[int], list[bytes | None]]:
        """Return the types and the bytes of the fields."""
        _check_depth(self._name, depth)
        fields = Fields(self._name, data)
        oids: list[int] = []
        values: list[bytes | None] = []
        for _ in range(fields.count(8, "fields")):
            oids.append(fields.take(_U32)[0])
            values.append(fields.value())
        fields.finish()
        return oids, values

    @staticmethod
    def _decoded(
        parts: Iterable[Part], values: Iterable[bytes | None], depth: int
    ) -> tuple[Any, ...]:
        return tuple(
            [
                None if value is None else part.binary_at(value, depth + 1)
                for part, value in zip(parts, values, strict=True)
            ]
        )


# A field: in quotes, with `"` and `\` doubled; bare; or NULL, which is nothing. What follows it.
_FIELD = re.compile(rb'(?:"((?:[^"\\]++|""|\\.)*+)"|([^"\\,()\s]*+))([,)])', re.DOTALL)


class CompositeForm(RecordForm):
    """A composite with known fields: a named tuple.

    A value that has other fields was made before or after DDL that the definition does not know.
    Its text is left as it came, and from binary it is a plain tuple of what it has.
    """

    def __init__(
        self,
        name: str,
        fields: Sequence[tuple[str, int]],
        parts: Sequence[Part],
        field_of: Callable[[int], Part],
    ) -> None:
        super().__init__(field_of, name)
        self._oids = [oid for _, oid in fields]
        self._parts = parts
        made = composite_class(name, tuple(field for field, _ in fields))
        self._new = functools.partial(tuple.__new__, made)

    def text(self, data: bytes) -> Any:
        if data == b"()" and not self._oids:
            return self._new(())
        sent = self._sent_fields(data)
        if sent is None:
            return data.decode()
        return self._new(
            [
                None if field is None else part.text(field)
                for part, field in zip(self._parts, sent, strict=True)
            ]
        )

    def _sent_fields(self, data: bytes) -> list[bytes | None] | None:
        """Return the text of each field; None where the value has others than it should."""
        sent: list[bytes | None] = []
        at = 1
        mark = b"," if data[:1] == b"(" else b""
        while mark == b",":
            found = _FIELD.match(data, at)
            if found is None or len(sent) == len(self._oids):
                return None
            quoted, bare, mark = found.groups()
            sent.append(bare or None if quoted is None else _undoubled(quoted))
            at = found.end()
        return sent if at == len(data) and len(sent) == len(self._oids) else None

    def binary(self, data: bytes, depth: int) -> tuple[Any, ...]:
        oids, values = self._fields(data, depth)
        if oids == self._oids:
            return self._new(self._decoded(self._parts, values, depth))
        return self._decoded(map(self._field_of, oids), values, depth)


_PAIR = re.compile(
    rb'"((?:[^"\\]++|\\.)*+)"=>(?:"((?:[^"\\]++|\\.)*+)"|NULL)(?:, (?=")|\Z)', re.DOTALL
)


def hstore_text(data: bytes) -> Any:
    pairs = {}
    at = 0
    while at < len(data):
        pair = _PAIR.match(data, at)
        if pair is None:
            return data.decode()
        key, value = (None if s is None else _UNESCAPE.sub(rb"\1", s) for s in pair.groups())
        if key is not None:
            pairs[key.decode()] = None if value is None else value.decode()
        at = pair.end()
    return pairs


def hstore_binary(data: bytes) -> dict[str, str | None]:
    fields = Fields("hstore", data)
    pairs: dict[str, str | None] = {}
    for _ in range(fields.count(8, "pairs")):
        key, value = fields.value(), fields.value()
        if key is None:
            raise fields.error("a key", "NULL")
        pairs[key.decode()] = None if value is None else value.decode()
    fields.finish()
    return pairs
