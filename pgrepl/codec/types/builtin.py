"""The types of PostgreSQL's own: their OIDs, their names, and how scalars are decoded.

Source: PostgreSQL documentation, "Data Types"; OIDs as in the catalog pg_type.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from . import addresses, datetimes, scalars, search, shapes
from .fields import fixed

__all__ = [
    "ARRAYS",
    "BOX_OID",
    "MULTIRANGES",
    "NAMES",
    "OIDS",
    "RANGES",
    "SCALARS",
    "TEXT_OID",
    "VECTORS",
    "VERSIONED",
    "Decode",
    "Scalar",
]

Decode: TypeAlias = Callable[[bytes], Any]


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
VECTORS: Final = {
    _INT2VECTOR: (1006, "int2vector", 21),
    _OIDVECTOR: (1013, "oidvector", 26),
}

# By OID: the array's, the name, the OID of the bounds.
RANGES: Final = {
    3904: (3905, "int4range", 23),
    3906: (3907, "numrange", 1700),
    3908: (3909, "tsrange", 1114),
    3910: (3911, "tstzrange", 1184),
    3912: (3913, "daterange", 1082),
    3926: (3927, "int8range", 20),
}
# By OID: the array's, the name, the OID of the ranges.
MULTIRANGES: Final = {
    4451: (6150, "int4multirange", 3904),
    4532: (6151, "nummultirange", 3906),
    4533: (6152, "tsmultirange", 3908),
    4534: (6153, "tstzmultirange", 3910),
    4535: (6155, "datemultirange", 3912),
    4536: (6157, "int8multirange", 3926),
}

ARRAYS: Final[Mapping[int, int]] = {
    **{scalar.array_oid: oid for oid, scalar in SCALARS.items() if scalar.array_oid},
    **{entry[0]: oid for oid, entry in (VECTORS | RANGES | MULTIRANGES).items()},
    _RECORD_ARRAY: _RECORD,
}


def _names() -> Mapping[int, str]:
    names = {oid: scalar.name for oid, scalar in SCALARS.items()}
    names |= {oid: entry[1] for oid, entry in (VECTORS | RANGES | MULTIRANGES).items()}
    names[_RECORD] = "record"
    return names | {array: f"_{names[oid]}" for array, oid in ARRAYS.items()}


NAMES: Final = _names()
OIDS: Final = {name: oid for oid, name in NAMES.items()}
TEXT_OID = 25
BOX_OID = 603  # the only type whose array has another delimiter than a comma

# What stands before the text in a binary value, and says nothing.
VERSIONED: Final = frozenset({3802, 4072})
