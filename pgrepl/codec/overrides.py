"""Rules of `types` that no type of a database answers to: a slip of the pen, most likely.

Source: PostgreSQL documentation, "System Catalogs": pg_type.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..typedefs import TypeDefinition

__all__ = ["unanswered"]

_MOST_LIKELY = 3


def unanswered(
    keys: Iterable[int | str], definitions: Iterable[TypeDefinition]
) -> dict[int | str, list[str]]:
    """Return the keys of `types` that neither PostgreSQL's own types nor the definitions have.

    With each come the names that it is most like.
    """
    # Both take a while to load, and few streams have rules.
    import difflib

    from .types.builtin import NAMES

    oids, names = {*NAMES}, {*NAMES.values()}
    names |= {f"pg_catalog.{name}" for name in names}
    for definition in definitions:
        oids.add(definition.oid)
        names |= {definition.name, f"{definition.schema}.{definition.name}"}
    return {
        key: difflib.get_close_matches(key, names, _MOST_LIKELY) if isinstance(key, str) else []
        for key in keys
        if key not in (oids if isinstance(key, int) else names)
    }
