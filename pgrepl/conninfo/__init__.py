"""Connection strings, as libpq understands them: what they say, and what it takes to connect.

This room reads the environment and the files that a conninfo leads to (pg_service.conf, .pgpass),
and nothing else: it opens no connection.
"""

from .arguments import ConninfoKeywords
from .grammar import parse
from .parameters import ConnectionParameters, Host
from .resolving import resolve

__all__ = ["ConnectionParameters", "ConninfoKeywords", "Host", "parse", "resolve"]
