"""How the demo went, in a few lines. Everything said here was measured or compared."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass

from ...lsn import Lsn
from .ledger import Verdict
from .tally import Tally
from .workload import KINDS, TABLES

__all__ = ["Summary"]


@dataclass(frozen=True, slots=True)
class Summary:
    """What is known at the end; `confirmed` is what the slot says at the server."""

    title: str
    seconds: float
    tally: Tally
    verdict: Verdict
    replica_rows: int
    replica_differences: int
    rollbacks: int
    acknowledged: Lsn
    confirmed: Lsn

    @property
    def is_clean(self) -> bool:
        """Whether everything is as it must be."""
        return (
            self.verdict.is_clean
            and self.replica_differences == 0
            and self.acknowledged == self.confirmed
        )

    def lines(self) -> Iterator[str]:
        """Yield the lines."""
        tally = self.tally
        total = tally.changes.total()
        yield f"{self.title}, {self.seconds:.1f} s"
        yield ""
        yield f"{'':12}" + "".join(f"{kind:>10}" for kind in KINDS)
        for name in TABLES:
            yield f"{name:12}" + "".join(f"{tally.changes[name, kind]:10,}" for kind in KINDS)
        yield ""
        for label, text in (
            ("transactions", f"{tally.transactions:,}, the largest with {tally.largest:,} changes"),
            ("", f"{self.rollbacks:,} more were rolled back, and rightly never seen"),
            ("changes", f"{total:,}, with {tally.changes['', 'message']:,} logical messages"),
            ("rate", f"{total / self.seconds:,.0f} changes/s, at best {tally.peak_rate:,.0f}"),
            ("lag", self._lag()),
            ("acknowledged", self._position()),
            ("delivered = committed", self._delivery(total)),
            ("replica = tables", self._replica()),
        ):
            yield f"{label:22}{text}"

    def _lag(self) -> str:
        lags = self.tally.lags or [0]
        median, longest = statistics.median(lags) / 1000, max(lags) / 1000
        return f"{median:.1f} ms median, {longest:.1f} ms at most, after the commit"

    def _position(self) -> str:
        if self.acknowledged == self.confirmed:
            return f"{self.acknowledged}, and the slot says the same"
        return f"{self.acknowledged}, BUT the slot says {self.confirmed}"

    def _delivery(self, total: int) -> str:
        if self.verdict.is_clean:
            return f"yes: {self.tally.transactions:,} transactions, {total:,} changes, each once"
        return f"NO: of the transactions {self.verdict}"

    def _replica(self) -> str:
        if self.replica_differences == 0:
            return f"yes: {self.replica_rows:,} rows, rebuilt from the stream, are equal"
        return f"NO: {self.replica_differences:,} rows differ"
