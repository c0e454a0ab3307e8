"""Who is measured: the line-ups of the three parts, what each contender does, whom it is held
against.

Both twins of pgrepl are contenders of their own. What they do is in `benchmarks.loops`, or where a
part says so.
"""

from __future__ import annotations

__all__ = ["OnTwin"]


class OnTwin:
    """A contender that may run on one of pgrepl's twins: c or python, None of all others."""

    __slots__ = ()

    implementation: str | None

    @property
    def environment(self) -> dict[str, str]:
        """What to set in the process's environment."""
        return {"PGREPL_IMPL": self.implementation} if self.implementation else {}
