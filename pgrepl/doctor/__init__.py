"""Whether a server is ready for logical replication, and what mends it: what ``pgrepl doctor`` is
made of, for a service's own readiness check.

Law: it only looks. What would change anything is given as SQL that somebody else may run. Only
`drivers` waits; what is asked, and what the answers mean, is decided without a connection.
"""

from ..facade import facade as _facade

TYPE_CHECKING = False  # typing takes long to load
if TYPE_CHECKING:
    from .drivers import examine
    from .finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]

_NAMES = {"Finding": ".finding", "Level": ".finding", "examine": ".drivers"}
"""The module that has each name, which is loaded with the first use of it."""

__getattr__, __dir__ = _facade(__name__, _NAMES)
