"""Typed values: the types that are known, and how each is decoded.

Law: lossless, or the server's text. What Python cannot hold, and every type that is not known here,
arrives as the text that the server sends, never as None, 0 or an exception. Text is what a type's
output function writes under DateStyle ISO, IntervalStyle postgres and extra_float_digits 3; binary
is what its send function does.

Source: PostgreSQL documentation, "Data Types".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from ...escapes import printable
from ...identifiers import quoted
from ...typedefs import (
    ArrayType,
    BaseType,
    CompositeType,
    DomainType,
    EnumType,
    MultirangeType,
    RangeType,
    TypeDefinition,
)
from ...values import Array
from ..faults import RuleFailed
from ..unpicklable import Unpicklable
from . import scalars
from .builtin import (
    ARRAYS,
    BOX_OID,
    MULTIRANGES,
    NAMES,
    OIDS,
    RANGES,
    SCALARS,
    TEXT_OID,
    VECTORS,
    VERSIONED,
    Decode,
)
from .containers import (
    MAX_DEPTH,
    ArrayForm,
    CompositeForm,
    MultirangeForm,
    RangeForm,
    RecordForm,
    hstore_binary,
    hstore_text,
)

__all__ = ["Override", "Types", "ValueType"]

DecodeAt: TypeAlias = Callable[[bytes, int], Any]
Override: TypeAlias = Callable[[Any], Any] | int
"""What decodes a type instead: a function of the server's `str`, or of the `bytes` of a binary
value; or the OID of a type of PostgreSQL's own that it is to be decoded like."""


class ValueType(Unpicklable):
    """A type of values. `text` and `binary` take the bytes of one value, which is not NULL.

    `text` gives the text itself where it is not what the type's output function writes; `binary`
    raises `ValueError`. Both raise `UnicodeDecodeError` for text that is not UTF-8.

    `like` is the OID of the type of PostgreSQL's own, without parts, that this one is decoded
    exactly like: the native twin reads those itself. 0 stands for the server's text and bytes.
    """

    __slots__ = ("_at_depth", "binary", "like", "name", "oid", "text")

    oid: int
    name: str
    text: Decode
    binary: Decode
    like: int | None

    def __init__(
        self,
        oid: int,
        name: str,
        text: Decode,
        binary: Decode,
        *,
        at_depth: DecodeAt | None = None,
        like: int | None = None,
    ) -> None:
        self.oid = oid
        self.name = name
        self.text = text
        self.binary = binary
        self.like = like
        self._at_depth = at_depth

    def binary_at(self, data: bytes, depth: int) -> Any:
        """Decode a binary value that stands inside of `depth` others."""
        return self.binary(data) if self._at_depth is None else self._at_depth(data, depth)

    def renamed(self, oid: int, name: str) -> ValueType:
        """Return the same type under another OID: a domain, or an alias."""
        return ValueType(oid, name, self.text, self.binary, at_depth=self._at_depth, like=self.like)

    def __repr__(self) -> str:
        return f"<ValueType {printable(self.name)} oid={self.oid}>"


UTF8: Final = "utf-8"
_TEXT: Final = bytes.decode

# Of extensions: before their text stands a version in binary.
_VERSIONED_NAMES: Final = frozenset({"ltree", "lquery", "ltxtquery"})


def _as_sent(oid: int = 0, name: str = "") -> ValueType:
    return ValueType(oid, name, _TEXT, scalars.identity, like=0)


_SENT: Final = _as_sent()


class Types(Unpicklable):
    """The types of a server's values: PostgreSQL's own, those that the server describes, and those
    that the catalogue's definitions tell of.

    `overrides` says by OID, by name (``"jsonb"``, ``"mood"``) or by schema and name
    (``"public.mood"``) how to decode a type instead; the OID counts before the full name, and that
    before the name alone. A function gets the `str` of a text value and the `bytes` of a binary one
    (of jsonb and jsonpath without the version byte, hence ``{"jsonb": json.loads}`` does for both).
    A type's override counts inside of other types too. Without `typed` all values are the server's
    text, or the bytes of a binary column. `encoding`: Python's name for what columns sent as text
    are in. `edition` counts how often types have changed their meaning: what was looked up in the
    same edition means the same.

    Raises `TypeError` and `ValueError` for overrides that are none.
    """

    def __init__(
        self,
        overrides: Mapping[int | str, Override] | None = None,
        typed: bool = True,
        encoding: str = UTF8,
    ) -> None:
        self._typed = typed
        self._encoding = encoding
        self._overrides = dict(overrides or {})
        self._known: dict[int, ValueType] = {}
        self._described: dict[int, tuple[str, str]] = {}
        self._definitions: dict[int, TypeDefinition] = {}
        self._user_oids: dict[tuple[str, str], int] = {}
        self._making: set[int] = set()
        self.edition = 0
        for key, override in self._overrides.items():
            _check_override(key, override)

    def of_column(self, oid: int) -> ValueType:
        """Return the type with an OID, for what is sent as text in the encoding."""
        made, encoding = self.lookup(oid), self._encoding
        if encoding == UTF8:
            return made

        def text(data: bytes) -> Any:
            return made.text(data if data.isascii() else data.decode(encoding).encode())

        return ValueType(made.oid, made.name, text, made.binary)

    def lookup(self, oid: int) -> ValueType:
        """Return the type with an OID; one that is not known gives `str` from text, and `bytes`
        from binary."""
        if not self._typed:
            return _SENT
        known = self._known.get(oid)
        if known is not None:
            return known
        # No real type is part of itself, or of so many, but definitions can say so.
        if oid not in NAMES and (oid in self._making or len(self._making) >= MAX_DEPTH):
            return _SENT
        self._making.add(oid)
        try:
            made = self._make(oid)
        finally:
            self._making.discard(oid)
        # What nobody described is not kept: its OIDs may come out of values, without an end.
        if self._knows(oid):
            self._known[oid] = made
        return made

    def name_of(self, oid: int) -> str | None:
        """Return what SQL calls the type with an OID; None where nobody told of it."""
        definition = self._definition(oid)
        if oid in ARRAYS:
            element = self._name_of(ARRAYS[oid])
        else:
            of = definition.element_oid if isinstance(definition, ArrayType) else None
            element = None if of is None else self._name_of(of)
        return self._name_of(oid) if element is None else f"{element}[]"

    def _name_of(self, oid: int) -> str | None:
        definition = self._definition(oid)
        if oid not in NAMES and definition is not None:
            return f"{quoted(definition.schema)}.{quoted(definition.name)}"
        schema, name = self._described.get(oid, ("pg_catalog", NAMES.get(oid)))
        if schema == "pg_catalog":
            # Without quotes that name is another type's.
            return '"char"' if name == "char" else name
        return f"{quoted(schema)}.{quoted(name or '')}"

    def describe(self, oid: int, schema: str, name: str) -> None:
        """Take in what a Type message says: a user's type, or for a domain what it is over.

        Types looked up before keep decoding as they did.
        """
        if self._described.get(oid) == (schema, name):
            return
        before = self._described.get(oid)
        if before is not None and self._user_oids.get(before) == oid:
            del self._user_oids[before]  # of names there is no end
        self._described[oid] = schema, name
        if schema != "pg_catalog":
            self._user_oids[schema, name] = oid
        self._change()

    def define(self, definitions: Iterable[TypeDefinition]) -> None:
        """Take in what the catalogue says of types, in any order; a later definition replaces an
        earlier one of the same OID.

        Raises `TypeError` for what is no definition.
        """
        for definition in definitions:
            if not isinstance(definition, TypeDefinition):
                raise TypeError(
                    f"expected definitions of types, got {type(definition).__name__}; "
                    "pgrepl.typedefs has their classes"
                )
            self._definitions[definition.oid] = definition
            self._user_oids[definition.schema, definition.name] = definition.oid
        self._change()

    def _change(self) -> None:
        self._known.clear()  # an array may now know its elements
        self.edition += 1

    def _knows(self, oid: int) -> bool:
        return any(
            oid in each for each in (NAMES, self._described, self._definitions, self._overrides)
        )

    def _make(self, oid: int) -> ValueType:
        definition = self._definition(oid)
        if oid in NAMES:
            schema, name = "pg_catalog", NAMES[oid]
        elif definition is not None:
            schema, name = definition.schema, definition.name
        else:
            schema, name = self._described.get(oid, ("", ""))
        override = self._override(oid, schema, name)
        if override is not None:
            return self._overridden(oid, name, override)
        if oid in NAMES:
            return self._own(oid)
        if definition is not None:
            return self._defined(definition)
        if schema == "pg_catalog" and name in OIDS:
            return self.lookup(OIDS[name]).renamed(oid, name)
        if name.startswith("_") and len(name) > 1:
            element = self._element(schema, name[1:])
            return _array(oid, name, element, ",", lambda sent: self._sent(sent, element))
        return _by_name(oid, name)

    def _definition(self, oid: int) -> TypeDefinition | None:
        """Return what is defined for an OID, unless the server says that it is another type."""
        found = self._definitions.get(oid)
        if found is not None and oid in self._described:
            return found if self._described[oid] == self._announced(found) else None
        return found

    def _announced(self, definition: TypeDefinition) -> tuple[str, str]:
        """Return what a Type message says of a type: the name of what a domain is over."""
        seen = set()
        while isinstance(definition, DomainType) and definition.oid not in seen:
            seen.add(definition.oid)
            base = self._definitions.get(definition.base_oid)
            if base is None:
                return "pg_catalog", NAMES.get(definition.base_oid, "")
            definition = base
        return definition.schema, definition.name

    def _override(self, oid: int, schema: str, name: str) -> Override | None:
        for key in (oid, f"{schema}.{name}", name):
            if key in self._overrides:
                return self._overrides[key]
        return None

    def _overridden(self, oid: int, name: str, override: Override) -> ValueType:
        if isinstance(override, int):
            return self._own(override).renamed(oid, name)

        def ruled(value: str | bytes) -> Any:
            try:
                return override(value)
            except Exception as error:
                raise RuleFailed(name) from error

        def text(data: bytes) -> Any:
            return ruled(data.decode())

        def after_version(data: bytes) -> Any:
            return ruled(scalars.versioned(name, data))

        return ValueType(oid, name, text, after_version if oid in VERSIONED else ruled)

    def _own(self, oid: int) -> ValueType:
        """Make a type of PostgreSQL's own, whatever the overrides say of itself."""
        name = NAMES[oid]
        if oid in SCALARS:
            scalar = SCALARS[oid]
            return ValueType(oid, name, scalar.text, scalar.binary, like=oid)
        if oid in ARRAYS:
            element = self.lookup(ARRAYS[oid])
            delimiter = ";" if element.oid == BOX_OID else ","
            return _array(oid, name, element, delimiter, _only(element))
        if oid in RANGES:
            return _range(oid, name, self.lookup(RANGES[oid][2]))
        if oid in MULTIRANGES:
            return _multirange(oid, name, self.lookup(MULTIRANGES[oid][2]))
        if oid in VECTORS:
            return _vector(oid, self.lookup(VECTORS[oid][2]))
        return _container(oid, name, _TEXT, RecordForm(self.lookup).binary)

    def _defined(self, definition: TypeDefinition) -> ValueType:
        """Make a type of which the catalogue says what it is."""
        oid, name = definition.oid, definition.name
        match definition:
            case EnumType():
                return self._own(TEXT_OID).renamed(oid, name)
            case CompositeType(has_gaps=True):
                # Which fields a value has only a binary one tells, and by their types alone.
                return _container(oid, name, _TEXT, RecordForm(self.lookup, name).binary)
            case CompositeType(fields=fields):
                parts = [self.lookup(field) for _, field in fields]
                composite = CompositeForm(name, fields, parts, self.lookup)
                return _container(oid, name, composite.text, composite.binary)
            case RangeType(subtype_oid=subtype):
                return _range(oid, name, self.lookup(subtype))
            case MultirangeType(range_oid=ranges):
                return _multirange(oid, name, self.lookup(ranges))
            case DomainType(base_oid=base):
                return self.lookup(base).renamed(oid, name)
            case ArrayType(element_oid=expected, delimiter=delimiter):
                element = self.lookup(expected)
                return _array(
                    oid,
                    name,
                    element,
                    delimiter,
                    lambda sent: element if sent == expected else self.lookup(sent),
                )
            case BaseType():
                return _by_name(oid, name)

    def _element(self, schema: str, name: str) -> ValueType:
        """Return the type of a user's array's elements; OID 0 where nobody told of it."""
        # An array is no element; the names of a hostile server could go on for long.
        oid = 0 if name.startswith("_") else self._user_oids.get((schema, name), 0)
        if oid:
            return self.lookup(oid)
        override = self._override(0, schema, name)
        return _by_name(0, name) if override is None else self._overridden(0, name, override)

    def _sent(self, oid: int, named: ValueType) -> ValueType:
        """Return the type that a binary array of a user's type names for its elements."""
        return self.lookup(oid) if self._knows(oid) else named


def _check_override(key: object, override: object) -> None:
    if not isinstance(key, int | str):
        raise TypeError(f"expected a type's OID or name in `types`, got {type(key).__name__}")
    if isinstance(override, int):
        if override not in NAMES:
            raise ValueError(
                f"expected the OID of one of PostgreSQL's own types for {key!r} in `types`, "
                f"got {override}"
            )
    elif not callable(override):
        raise TypeError(
            f"expected a callable or an OID for {key!r} in `types`, got {type(override).__name__}"
        )


def _by_name(oid: int, name: str) -> ValueType:
    """Make a type of an extension that is known by its name; of another one, what was sent."""
    if name == "hstore":
        return ValueType(oid, name, hstore_text, hstore_binary)
    if name == "citext":
        return ValueType(oid, name, _TEXT, _TEXT, like=TEXT_OID)
    if name in _VERSIONED_NAMES:
        return ValueType(oid, name, _TEXT, lambda data: scalars.versioned(name, data).decode())
    return _as_sent(oid, name)


def _container(oid: int, name: str, text: Decode, at_depth: DecodeAt) -> ValueType:
    return ValueType(oid, name, text, lambda data: at_depth(data, 0), at_depth=at_depth)


def _array(
    oid: int,
    name: str,
    element: ValueType,
    delimiter: str,
    element_of: Callable[[int], ValueType],
) -> ValueType:
    form = ArrayForm(element, delimiter, element_of)
    return _container(oid, name, form.text, form.binary)


def _range(oid: int, name: str, bound: ValueType) -> ValueType:
    form = RangeForm(name, bound)
    return _container(oid, name, form.text, form.binary)


def _multirange(oid: int, name: str, ranges: ValueType) -> ValueType:
    form = MultirangeForm(name, ranges)
    return _container(oid, name, form.text, form.binary)


def _only(element: ValueType) -> Callable[[int], ValueType]:
    def element_of(oid: int) -> ValueType:
        if oid != element.oid:
            raise ValueError(
                f"expected elements of type {element.name} (OID {element.oid}) in a binary array, "
                f"got OID {oid}"
            )
        return element

    return element_of


def _vector(oid: int, element: ValueType) -> ValueType:
    """int2vector and oidvector: arrays from 0 on that have a text form of their own."""
    name = NAMES[oid]

    def text(data: bytes) -> Any:
        items = data.split(b" ") if data else []
        if b"" in items:
            return data.decode()
        return Array(map(element.text, items), (0,) if items else (), " ")

    return _container(oid, name, text, ArrayForm(element, " ", _only(element)).binary)
