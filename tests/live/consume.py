"""A process that reads a stream for its memory to be watched:

    python -m tests.live.consume <conninfo> <slot> <bytes of payload to read>

It prints three numbers: the peak of its resident memory, in bytes, when the stream has come into
its stride and at the end, and how many bytes of payload it read.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pgrepl
from tests.live.streams import PATIENCE, start_pgoutput

#: Behind that much every buffer has been in use.
_STRIDE = 4 << 20


def peak_memory() -> int:
    """VmHWM: the peak of this program alone, which getrusage() would mix with its parent's."""
    found = re.search(r"^VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def main(conninfo: str, slot: str, size: int) -> None:
    with pgrepl.connect(conninfo) as connection:
        start_pgoutput(connection, slot, messages="true")
        read = at_first = 0
        while read < size:
            for message in connection.receive_wal_messages(timeout=PATIENCE):
                if not isinstance(message, pgrepl.PrimaryKeepalive):
                    read += len(message.data)
            if not at_first and read > _STRIDE:
                at_first = peak_memory()
        print(at_first, peak_memory(), read)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
