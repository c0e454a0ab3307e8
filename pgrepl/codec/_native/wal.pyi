from .._pure.wal import PrimaryKeepalive as PrimaryKeepalive
from .._pure.wal import WalBatch as WalBatch
from .._pure.wal import XLogData as XLogData
from .._pure.wal import next_batch as next_batch
from .._pure.wal import standby_status as standby_status
