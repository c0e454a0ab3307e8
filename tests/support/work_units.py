"""How pytest-xdist spreads the tests over its workers.

The tests of a file share databases and servers, so they stay together: those on one server, and of
one kind of connection, since these are as many as a file has servers and databases of its own.
"""

from __future__ import annotations

import re
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests.support.flavours import ASYNCHRONOUS
from tests.support.versions import cluster_names

_ASYNCHRONOUS: Final = re.compile(rf"(?<![^[-])({'|'.join(ASYNCHRONOUS)})(?![^]-])")
_SERVER: Final = re.compile(rf"(?<![^[-])({'|'.join(map(re.escape, cluster_names()))})(?![^]-])")


def work_unit(node_id: str) -> str:
    """The name of what a test is run together with: the same worker runs all of it."""
    file, _, test = node_id.partition("::")
    parameters = test[test.find("[") :] if "[" in test else ""
    server = _SERVER.search(parameters)
    return " ".join(
        [
            file,
            "asyncio" if _ASYNCHRONOUS.search(parameters) else "blocking",
            server.group() if server else "no server",
        ]
    )


class WorkUnits(LoadScopeScheduling):  # type: ignore[misc]
    """Hands the tests out by their `work_unit`, in the order in which they were collected."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return work_unit(nodeid)
