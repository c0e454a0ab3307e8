"""Names as SQL reads them: quoted where they have to be.

Source: PostgreSQL documentation, "SQL Key Words" and "String Functions": quote_ident.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["quoted"]

_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*", re.ASCII)

# What PostgreSQL 15 to 18 do not call "unreserved", all of them together.
_WORDS: Final = """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit
    boolean both case cast char character check coalesce collate collation column concurrently
    constraint create cross current_catalog current_date current_role current_schema
    current_time current_timestamp current_user dec decimal default deferrable desc distinct do
    else end except exists extract false fetch float for foreign freeze from full grant greatest
    group grouping having ilike in initially inner inout int integer intersect interval into is
    isnull join json json_array json_arrayagg json_exists json_object json_objectagg json_query
    json_scalar json_serialize json_table json_value lateral leading least left like limit
    localtime localtimestamp merge_action national natural nchar none normalize not notnull null
    nullif numeric offset on only or order out outer overlaps overlay placing position precision
    primary real references returning right row select session_user setof similar smallint some
    substring symmetric system_user table tablesample then time timestamp to trailing treat trim
    true union unique user using values varchar variadic verbose when where window with
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot
    xmlserialize xmltable
    """
_RESERVED: Final = frozenset(_WORDS.split())


def quoted(name: str) -> str:
    """Return a name as ``quote_ident`` writes it, of the newest version that is known here.

    Any version reads what is in quotes: ``item``, ``"Item"``, ``"a ""b"" c"``, ``"user"``.
    """
    if _PLAIN.fullmatch(name) and name not in _RESERVED:
        return name
    return '"' + name.replace('"', '""') + '"'
