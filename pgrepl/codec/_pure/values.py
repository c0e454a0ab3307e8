"""Typed values, pure Python: which types there are, and how each is decoded.

Law: lossless, or the server's text. What Python cannot hold, and every type that is not known here,
arrives as the text that the server sends, never as None, 0 or an exception. Text is what a type's
output function writes under DateStyle ISO, IntervalStyle postgres and extra_float_digits 3; binary
is what its send function does.

Source: PostgreSQL documentation, "Data Types"; OIDs as in the catalog pg_type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, NamedTuple, TypeAlias

from ...values import Array
from . import addresses, datetimes, scalars, search, shapes
from .containers import (
    ArrayForm,
    MultirangeForm,
    RangeForm,
    RecordForm,
    hstore_binary,
    hstore_text,
)
from .fields import fixed

__all__ = ["SCALARS", "Override", "Scalar", "Types", "ValueType"]

Decode: TypeAlias = Callable[[bytes], Any]
DecodeAt: TypeAlias = Callable[[bytes, int], Any]
Override: TypeAlias = Callable[[Any], Any] | int
"""What decodes a type instead: a function of the server's `str`, or of the `bytes` of a binary
value; or the OID of a type of PostgreSQL's own that it is to be decoded like."""


class ValueType:
    """A type of values. `text` and `binary` take the bytes of one value, which is not NULL.

    `text` gives the text itself where it is not what the type's output function writes; `binary`
    raises `ValueError`. Both raise `UnicodeDecodeError` for text that is not UTF-8.
    """

    __slots__ = ("_at_depth", "binary", "name", "oid", "text")

    oid: int
    name: str
    text: Decode
    binary: Decode

    def __init__(
        self, oid: int, name: str, text: Decode, binary: Decode, at_depth: DecodeAt | None = None
    ) -> None:
        self.oid = oid
        self.name = name
        self.text = text
        self.binary = binary
        self._at_depth = at_depth

    def binary_at(self, data: bytes, depth: int) -> Any:
        """Decode a binary value that stands inside of `depth` others."""
        return self.binary(data) if self._at_depth is None else self._at_depth(data, depth)

    def renamed(self, oid: int, name: str) -> ValueType:
        """Return the same type under another OID: a domain, or an alias."""
        return ValueType(oid, name, self.text, self.binary, self._at_depth)

    def __repr__(self) -> str:
        name = self.name if self.name.isprintable() else ascii(self.name)
        return f"<ValueType {name} oid={self.oid}>"


class Scalar(NamedTuple):
    """A type of PostgreSQL's own that has no other types in it; `array_oid` 0 for no array."""

    array_oid: int
    name: str
    text: Decode
    binary: Decode


_U32: Final = ">I"
_TEXT: Final = bytes.decode

SCALARS: Final[Mapping[int, Scalar]] = {
    16: Scalar(1000, "bool", scalars.bool_text, scalars.bool_binary),
    17: Scalar(1001, "bytea", scalars.bytea_text, scalars.identity),
    18: Scalar(1002, "char", _TEXT, scalars.char_binary),
    19: Scalar(1003, "name", _TEXT, _TEXT),
    20: Scalar(1016, "int8", scalars.integer_text, fixed("int8", ">q")),
    21: Scalar(1005, "int2", scalars.integer_text, fixed("int2", ">h")),
    23: Scalar(1007, "int4", scalars.integer_text, fixed("int4", ">i")),
    25: Scalar(1009, "text", _TEXT, _TEXT),
    26: Scalar(1028, "oid", scalars.unsigned_text, fixed("oid", _U32)),
    27: Scalar(1010, "tid", _TEXT, scalars.tid_binary),
    28: Scalar(1011, "xid", scalars.unsigned_text, fixed("xid", _U32)),
    29: Scalar(1012, "cid", scalars.unsigned_text, fixed("cid", _U32)),
    114: Scalar(199, "json", _TEXT, _TEXT),
    142: Scalar(143, "xml", _TEXT, _TEXT),
    600: Scalar(1017, "point", _TEXT, shapes.point_binary),
    601: Scalar(1018, "lseg", _TEXT, shapes.lseg_binary),
    602: Scalar(1019, "path", _TEXT, shapes.path_binary),
    603: Scalar(1020, "box", _TEXT, shapes.box_binary),
    604: Scalar(1027, "polygon", _TEXT, shapes.polygon_binary),
    628: Scalar(629, "line", _TEXT, shapes.line_binary),
    650: Scalar(651, "cidr", addresses.cidr_text, addresses.cidr_binary),
    700: Scalar(1021, "float4", scalars.float_text, fixed("float4", ">f")),
    701: Scalar(1022, "float8", scalars.float_text, fixed("float8", ">d")),
    705: Scalar(0, "unknown", _TEXT, _TEXT),
    718: Scalar(719, "circle", _TEXT, shapes.circle_binary),
    774: Scalar(775, "macaddr8", _TEXT, addresses.macaddr8_binary),
    790: Scalar(791, "money", _TEXT, fixed("money", ">q")),
    829: Scalar(1040, "macaddr", _TEXT, addresses.macaddr_binary),
    869: Scalar(1041, "inet", addresses.inet_text, addresses.inet_binary),
    1033: Scalar(1034, "aclitem", _TEXT, _TEXT),  # has no send function
    1042: Scalar(1014, "bpchar", _TEXT, _TEXT),
    1043: Scalar(1015, "varchar", _TEXT, _TEXT),
    1082: Scalar(1182, "date", datetimes.date_text, datetimes.date_binary),
    1083: Scalar(1183, "time", datetimes.time_text, datetimes.time_binary),
    1114: Scalar(1115, "timestamp", datetimes.timestamp_text, datetimes.timestamp_binary),
    1184: Scalar(1185, "timestamptz", datetimes.timestamptz_text, datetimes.timestamptz_binary),
    1186: Scalar(1187, "interval", datetimes.interval_text, datetimes.interval_binary),
    1266: Scalar(1270, "timetz", datetimes.timetz_text, datetimes.timetz_binary),
    1560: Scalar(1561, "bit", _TEXT, scalars.bit_binary),
    1562: Scalar(1563, "varbit", _TEXT, scalars.bit_binary),
    1700: Scalar(1231, "numeric", scalars.numeric_text, scalars.numeric_binary),
    1790: Scalar(2201, "refcursor", _TEXT, _TEXT),
    2275: Scalar(1263, "cstring", _TEXT, _TEXT),
    2950: Scalar(2951, "uuid", scalars.uuid_text, scalars.uuid_binary),
    2970: Scalar(2949, "txid_snapshot", _TEXT, scalars.snapshot_binary),
    3220: Scalar(3221, "pg_lsn", scalars.lsn_text, scalars.lsn_binary),
    3614: Scalar(3643, "tsvector", _TEXT, search.tsvector_binary),
    3615: Scalar(3645, "tsquery", _TEXT, search.tsquery_binary),
    3802: Scalar(3807, "jsonb", _TEXT, scalars.jsonb_binary),
    4072: Scalar(4073, "jsonpath", _TEXT, scalars.jsonpath_binary),
    5038: Scalar(5039, "pg_snapshot", _TEXT, scalars.snapshot_binary),
    5069: Scalar(271, "xid8", scalars.unsigned_text, fixed("xid8", ">Q")),
    # Objects by their OID, which is all that binary says; in text the name of the object.
    **{
        oid: Scalar(array_oid, name, _TEXT, fixed(name, _U32))
        for oid, array_oid, name in (
            (24, 1008, "regproc"),
            (2202, 2207, "regprocedure"),
            (2203, 2208, "regoper"),
            (2204, 2209, "regoperator"),
            (2205, 2210, "regclass"),
            (2206, 2211, "regtype"),
            (3734, 3735, "regconfig"),
            (3769, 3770, "regdictionary"),
            (4089, 4090, "regnamespace"),
            (4096, 4097, "regrole"),
            (4191, 4192, "regcollation"),
        )
    },
}

_RECORD, _RECORD_ARRAY = 2249, 2287
_INT2VECTOR, _OIDVECTOR = 22, 30
_VECTORS: Final = {
    _INT2VECTOR: (1006, "int2vector", 21),
    _OIDVECTOR: (1013, "oidvector", 26),
}

# By OID: the array's, the name, the OID of the bounds.
_RANGES: Final = {
    3904: (3905, "int4range", 23),
    3906: (3907, "numrange", 1700),
    3908: (3909, "tsrange", 1114),
    3910: (3911, "tstzrange", 1184),
    3912: (3913, "daterange", 1082),
    3926: (3927, "int8range", 20),
}
# By OID: the array's, the name, the OID of the ranges.
_MULTIRANGES: Final = {
    4451: (6150, "int4multirange", 3904),
    4532: (6151, "nummultirange", 3906),
    4533: (6152, "tsmultirange", 3908),
    4534: (6153, "tstzmultirange", 3910),
    4535: (6155, "datemultirange", 3912),
    4536: (6157, "int8multirange", 3926),
}

_ARRAYS: Final[Mapping[int, int]] = {
    **{scalar.array_oid: oid for oid, scalar in SCALARS.items() if scalar.array_oid},
    **{entry[0]: oid for oid, entry in (_VECTORS | _RANGES | _MULTIRANGES).items()},
    _RECORD_ARRAY: _RECORD,
}


def _names() -> Mapping[int, str]:
    names = {oid: scalar.name for oid, scalar in SCALARS.items()}
    names |= {oid: entry[1] for oid, entry in (_VECTORS | _RANGES | _MULTIRANGES).items()}
    names[_RECORD] = "record"
    return names | {array: f"_{names[oid]}" for array, oid in _ARRAYS.items()}


_NAMES: Final = _names()
_OIDS: Final = {name: oid for oid, name in _NAMES.items()}
_BOX_OID = 603  # the only type whose array has another delimiter than a comma

# What stands before the text in a binary value, and says nothing.
_VERSIONED: Final = frozenset({3802, 4072})


_SENT: Final = ValueType(0, "", _TEXT, scalars.identity)


class Types:
    """The types of a server's values: PostgreSQL's own, and those that the server describes.

    `overrides` says by OID, by name (``"jsonb"``, ``"mood"``) or by schema and name
    (``"public.mood"``) how to decode a type instead; the OID counts before the full name, and that
    before the name alone. A function gets the `str` of a text value and the `bytes` of a binary one
    (of jsonb and jsonpath without the version byte, hence ``{"jsonb": json.loads}`` does for both).
    A type's override counts inside of arrays, ranges and records too. Without `typed` all values
    are the server's text, or the bytes of a binary column.

    Raises `TypeError` and `ValueError` for overrides that are none.
    """

    _scalars: ClassVar[Mapping[int, Scalar]] = SCALARS

    def __init__(
        self, overrides: Mapping[int | str, Override] | None = None, typed: bool = True
    ) -> None:
        self._typed = typed
        self._overrides = dict(overrides or {})
        self._known: dict[int, ValueType] = {}
        self._described: dict[int, tuple[str, str]] = {}
        self._user_oids: dict[tuple[str, str], int] = {}
        for key, override in self._overrides.items():
            _check_override(key, override)

    def lookup(self, oid: int) -> ValueType:
        """Return the type with an OID; one that is not known gives `str` from text, and `bytes`
        from binary."""
        if not self._typed:
            return _SENT
        known = self._known.get(oid)
        if known is not None:
            return known
        made = self._make(oid)
        # What nobody described is not kept: its OIDs may come out of values, without an end.
        if self._knows(oid):
            self._known[oid] = made
        return made

    def describe(self, oid: int, schema: str, name: str) -> None:
        """Take in what a Type message says: a user's type, or for a domain what it is over.

        Types looked up before keep decoding as they did.
        """
        if self._described.get(oid) == (schema, name):
            return
        self._described[oid] = schema, name
        if schema != "pg_catalog":
            self._user_oids[schema, name] = oid
        self._known.clear()  # an array may now know its elements

    def _knows(self, oid: int) -> bool:
        return oid in _NAMES or oid in self._described or oid in self._overrides

    def _make(self, oid: int) -> ValueType:
        name = _NAMES.get(oid)
        schema, name = ("pg_catalog", name) if name else self._described.get(oid, ("", ""))
        override = self._override(oid, schema, name)
        if override is not None:
            return self._overridden(oid, name, override)
        if oid in _NAMES:
            return self._own(oid)
        if schema == "pg_catalog" and name in _OIDS:
            return self.lookup(_OIDS[name]).renamed(oid, name)
        if name.startswith("_") and len(name) > 1:
            element = self._element(schema, name[1:])
            return _array(oid, name, element, b",", lambda sent: self._sent(sent, element))
        return _by_name(oid, name)

    def _override(self, oid: int, schema: str, name: str) -> Override | None:
        for key in (oid, f"{schema}.{name}", name):
            if key in self._overrides:
                return self._overrides[key]
        return None

    def _overridden(self, oid: int, name: str, override: Override) -> ValueType:
        if isinstance(override, int):
            return self._own(override).renamed(oid, name)

        def text(data: bytes) -> Any:
            return override(data.decode())

        def after_version(data: bytes) -> Any:
            return override(scalars.versioned(name, data))

        return ValueType(oid, name, text, after_version if oid in _VERSIONED else override)

    def _own(self, oid: int) -> ValueType:
        """Make a type of PostgreSQL's own, whatever the overrides say of itself."""
        name = _NAMES[oid]
        if oid in self._scalars:
            return ValueType(oid, name, self._scalars[oid].text, self._scalars[oid].binary)
        if oid in _ARRAYS:
            element = self.lookup(_ARRAYS[oid])
            delimiter = b";" if element.oid == _BOX_OID else b","
            return _array(oid, name, element, delimiter, _only(element))
        if oid in _RANGES:
            ranges = self._range(oid)
            return _container(oid, name, ranges.text, ranges.binary)
        if oid in _MULTIRANGES:
            multirange = MultirangeForm(name, self._range(_MULTIRANGES[oid][2]))
            return _container(oid, name, multirange.text, multirange.binary)
        if oid in _VECTORS:
            return _vector(oid, self.lookup(_VECTORS[oid][2]))
        return _container(oid, name, _TEXT, RecordForm(self.lookup).binary)

    def _range(self, oid: int) -> RangeForm:
        return RangeForm(_NAMES[oid], self.lookup(_RANGES[oid][2]))

    def _element(self, schema: str, name: str) -> ValueType:
        """Return the type of a user's array's elements; OID 0 where it was not described itself."""
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
        if override not in _NAMES:
            raise ValueError(
                f"expected the OID of one of PostgreSQL's own types for {key!r} in `types`, "
                f"got {override}"
            )
    elif not callable(override):
        raise TypeError(
            f"expected a callable or an OID for {key!r} in `types`, got {type(override).__name__}"
        )


def _by_name(oid: int, name: str) -> ValueType:
    if name == "hstore":
        return ValueType(oid, name, hstore_text, hstore_binary)
    return ValueType(oid, name, _TEXT, scalars.identity)


def _container(oid: int, name: str, text: Decode, at_depth: DecodeAt) -> ValueType:
    return ValueType(oid, name, text, lambda data: at_depth(data, 0), at_depth)


def _array(
    oid: int,
    name: str,
    element: ValueType,
    delimiter: bytes,
    element_of: Callable[[int], ValueType],
) -> ValueType:
    form = ArrayForm(element, delimiter, element_of)
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
    name = _NAMES[oid]

    def text(data: bytes) -> Any:
        items = data.split(b" ") if data else []
        if b"" in items:
            return data.decode()
        return Array(map(element.text, items), (0,) if items else ())

    return _container(oid, name, text, ArrayForm(element, b",", _only(element)).binary)
