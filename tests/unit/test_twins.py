"""The two twins of the codec: neither knows of the other, and only what is used is loaded."""

from __future__ import annotations

import base64
import json
import os
import pickle
import re
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import pytest

import pgrepl
from pgrepl.codec import implementation

CODEC: Final = Path(pgrepl.__file__).parent / "codec"
# The source tree has them, an installed package has not.
SOURCES: Final = [
    path for path in CODEC.rglob("_*/*") if path.suffix in (".pyx", ".pxd", ".pxi", ".py")
]

LOADED: Final = """
import json, sys
from pgrepl import codec
before = [name for name in sys.modules if name.startswith("pgrepl.codec.")]
decoder = codec.Decoder()
decoder.feed(b"R\\0\\0\\0\\1public\\0t\\0d\\0\\1\\1i\\0\\0\\0\\0\\x17\\xff\\xff\\xff\\xff")
row = decoder.feed(b"I\\0\\0\\0\\1N\\0\\1t\\0\\0\\0\\x011").new
assert row["i"] == 1 and row == row and repr(row)
print(json.dumps([before, [name for name in sys.modules if name.startswith("pgrepl.codec.")]]))
"""


def loaded(implementation: str) -> tuple[set[str], set[str]]:
    """The modules of the codec that an import loads, and those that a decoder has loaded too."""
    given = os.environ | {"PGREPL_IMPL": implementation}
    said = subprocess.check_output([sys.executable, "-c", LOADED], env=given, text=True)
    before, after = json.loads(said)
    return {name[13:] for name in before}, {name[13:] for name in after}


@pytest.mark.parametrize("one, other", [("_native", "_pure"), ("_pure", "_native")])
def test_no_source_of_a_twin_imports_the_other(one: str, other: str) -> None:
    sources = [path for path in SOURCES if path.parent.name == one]
    if not any(path.suffix == ".pyx" for path in SOURCES):
        pytest.skip("an installed package has no sources of the native twin")
    assert sources
    for path in sources:
        imports = re.findall(r"^\s*(?:from|import|cimport)\s.*$", path.read_text(), re.MULTILINE)
        assert not [line for line in imports if re.search(rf"\b{other}\b", line)], path


@pytest.mark.skipif(implementation != "c", reason="this install has no compiled codec")
def test_the_native_twin_runs_without_the_pure_one() -> None:
    before, after = loaded("c")
    assert not {name for name in after if name.startswith("_pure")}
    assert not {name for name in before if name.startswith("types")}, "before a decoder is made"
    assert "types.registry" in after


def test_the_pure_twin_runs_without_the_native_one() -> None:
    _, after = loaded("python")
    assert not {name for name in after if name.startswith("_native")}


# An Update, an XLogData and a PrimaryKeepalive, as version 0.1.0 pickled them when a relation still
# kept what its rows look columns up in.
PICKLED: Final = {
    "_native": (
        b"eNptUL1PwkAUb2ltxAXioKCDm8GlE4mrBoyEw8ZgSFyMubYvXGO/0h6iA4kMICS3+fxz/Nv0tYHo4Jsu7/d1"
        b"v/dmfn7pWjkP2FK1dJxBGtoR5DkfQ47KGqU+l4AfeDbHv5QMQi6DJEa1O9w+t6Qb7UJZ6cQNAw+VGUiIUOk+"
        b"CktZnSScRL9MVQl8ZIf9b5oVUWPZRnBFbYOacULZrFnia2VKeJGEL9Ehr+odhOBtgpnG9CWKxgxb4oDpYp9p"
        b"k3ecozhi2gJFfYEzLJZ5sQRXNTc1vMQHz36MqcAz2Fkypc7GMJmSZUtUmb7AtThxJA4p8rTYVIrkkdPpXTrX"
        b"V12iLYlxrPY2fmFOFzEGefGnfu/8iQzmWMoptPFv6JSHdMT7QTLucsmLYKazCjM6Bne9Uivaqn6bBRHPXhlA"
        b"ykOSFZ1NtrN6JxzsH5adr4I="
    ),
    "_pure": (
        b"eNptkU1Lw0AQhpMmBuulxUPrx8Gb1EtOBa9KK5ZuDVIpeBHZJEM3uGlCsmn1ULCHfsHeHH+Mv043IUUP7mmZ"
        b"95332Zl9Nz+/dK04T9iStXicQMztENKUjiFFaY1inwrAD7xY4F9LApyKIJqg3B/urjvTnXYlrThzeeChNAMB"
        b"IUrdR2ZJqxPxLPx1ykrgI2n2v9XZKOtEtBFcVitVcxIpNjku9K00BbwKpa/QUVnVB+DglWCiEX2F7GiOLdYg"
        b"OjskWrbGBbIToi2R1Zc4x7yY5kVwZbMcw4t88OznOEvATqKZmtgYRjMV2GJVoi9xy84cgUMFPM8rlZw7cjq9"
        b"a+f2pqtsK+U4lQdlGk/VPoxBmr+o37t8UQELLNoVsvEPcka5WuDjIBp3qaA5luikQoyOQV2v6GRtWb9PgpAm"
        b"bwQgpjyY5r9BTLK3WSsd7B/Fha3k"
    ),
}


@pytest.mark.parametrize("twin", PICKLED)
def test_what_was_pickled_before_still_loads(twin: str) -> None:
    if twin == "_native" and implementation != "c":
        pytest.skip("this install has no compiled codec")
    update, message, keepalive = pickle.loads(zlib.decompress(base64.b64decode(PICKLED[twin])))
    assert update.key.asdict() == {"id": 1}
    assert update.new.asdict() == {"id": 2, "note": pgrepl.UNCHANGED}
    assert update.new.lsn == pgrepl.Lsn("0/16B3748")
    assert update.relation.key_columns == (pgrepl.Column("id", 23, -1, True),)
    assert update == pickle.loads(pickle.dumps(update))
    assert (message.wal_start, message.wal_end, message.server_time) == (1, 2, 3)
    assert bytes(message) == b"abc"
    assert (keepalive.wal_end, keepalive.server_time, keepalive.reply_requested) == (4, 5, True)
