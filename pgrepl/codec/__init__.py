"""Room 1, bytes <-> values: picks one of two twins that behave alike.

``PGREPL_IMPL=c`` demands the native twin, ``PGREPL_IMPL=python`` the pure one; without it the
native twin is used where it was built. `implementation` tells which one is in use: ``c`` or
``python``.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from . import abc as abc

if TYPE_CHECKING:
    from ..row import Row

    # To a type checker there is one implementation; the contract in abc.py holds both to it.
    from ._pure import (
        Decoder,
        FrameReader,
        PrimaryKeepalive,
        WalBatch,
        XLogData,
        next_batch,
        standby_status,
    )

__all__ = [
    "Decoder",
    "FrameReader",
    "PrimaryKeepalive",
    "Row",
    "WalBatch",
    "XLogData",
    "abc",
    "codec",
    "implementation",
    "next_batch",
    "standby_status",
]


def _choose() -> tuple[str, abc.Codec]:
    wanted = os.environ.get("PGREPL_IMPL", "")
    if wanted not in ("", "c", "python"):
        raise ImportError(f"expected PGREPL_IMPL to be 'c' or 'python', got {wanted!r}")
    if wanted != "python":
        try:
            from . import _native
        except ImportError as error:
            if wanted == "c":
                raise ImportError(
                    "PGREPL_IMPL=c demands the native twin, which this install of pgrepl does not "
                    f"have ({error}); install a wheel for this platform or build with a C compiler"
                ) from error
        else:
            return "c", cast(abc.Codec, _native)
    from . import _pure

    return "python", cast(abc.Codec, _pure)


implementation, codec = _choose()

if not TYPE_CHECKING:
    Decoder = codec.Decoder
    FrameReader = codec.FrameReader
    PrimaryKeepalive = codec.PrimaryKeepalive
    Row = codec.Row
    WalBatch = codec.WalBatch
    XLogData = codec.XLogData
    next_batch = codec.next_batch
    standby_status = codec.standby_status

# The twin that is not in use says where it is: its pickles are its own.
codec.name_place("pgrepl", Decoder, PrimaryKeepalive, Row, WalBatch, XLogData)
