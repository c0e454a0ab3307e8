"""Physical replication: the server's WAL, received and kept.

Law: only `directory` touches files, and only `receiver` waits. Names, segments, positions and what
may be said of them are decided in between, so that every order of events can be tested.
"""

from .drivers import receive_wal
from .receiving import ReceivedWal
from .writer import ReceivedSegment

__all__ = ["ReceivedSegment", "ReceivedWal", "receive_wal"]
