"""Values, pure Python: the twin of pgrepl/codec/_native/values.pyx.

That reads some types by itself, and this none: `pgrepl.codec.types` has them all.
"""

from __future__ import annotations

from ..types.registry import Override, Types, ValueType

__all__ = ["Override", "Types", "ValueType"]
