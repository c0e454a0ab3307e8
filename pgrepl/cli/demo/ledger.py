"""What was committed and what was delivered, transaction by transaction, to be compared.

The two sides know nothing of each other: the writer enters what the server's command tags told it,
the reader what came out of the stream.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Changes", "Ledger", "Verdict"]

Changes: TypeAlias = Counter[tuple[str, str]]
"""How many rows, by table and kind of change."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How many transactions were not delivered once as they were committed, by what is wrong."""

    missing: int
    repeated: int
    never_committed: int
    different: int

    @property
    def is_clean(self) -> bool:
        """Whether every committed transaction was delivered, whole, once, and nothing else was."""
        return not (self.missing or self.repeated or self.never_committed or self.different)

    def __str__(self) -> str:
        return (
            f"{self.missing} never delivered, {self.repeated} delivered again, "
            f"{self.never_committed} delivered and never committed, {self.different} incomplete"
        )


class Ledger:
    """Two lists of transactions by xid. The writer's thread enters one, the reader's the other."""

    def __init__(self) -> None:
        self.committed: dict[int, Changes] = {}
        self.delivered: dict[int, Changes] = {}
        self._repeated = 0

    def commit(self, xid: int, changes: Changes) -> None:
        """Enter a transaction that the server has committed."""
        self.committed[xid] = changes

    def deliver(self, xid: int, changes: Changes) -> None:
        """Enter a transaction that the stream has delivered to its end."""
        self._repeated += xid in self.delivered
        self.delivered[xid] = changes

    def compare(self) -> Verdict:
        """Return what is wrong, when both sides are complete."""
        committed, delivered = self.committed, self.delivered
        common = committed.keys() & delivered.keys()
        return Verdict(
            missing=len(committed.keys() - common),
            repeated=self._repeated,
            never_committed=len(delivered.keys() - common),
            different=sum(committed[xid] != delivered[xid] for xid in common),
        )
