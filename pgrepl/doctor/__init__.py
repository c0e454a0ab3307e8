"""Whether a server is ready for logical replication, and what mends it: what ``pgrepl doctor`` is
made of, for a service's own readiness check.

Law: it only looks. What would change anything is given as SQL that somebody else may run. Only
`drivers` waits; what is asked, and what the answers mean, is decided without a connection.
"""

from .drivers import examine
from .finding import Finding, Level

__all__ = ["Finding", "Level", "examine"]
