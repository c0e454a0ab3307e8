"""TLS as sslmode asks for it, by Python's ssl.

Source: PostgreSQL documentation, "SSL Support" (libpq).
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

from ..errors import UsageError
from .conninfo import ConnectionParameters

__all__ = ["tls_context", "tls_wrapper"]


def tls_context(parameters: ConnectionParameters) -> ssl.SSLContext:
    """Return the settings of TLS that the sslmode asks for.

    Raises `UsageError` where a certificate file is missing or not readable.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Servers from 17 on choose this name if it is offered; older ones ignore the offer.
    context.set_alpn_protocols(["postgresql"])
    context.check_hostname = parameters.sslmode == "verify-full"
    root = _root_certificates(parameters)
    if root is None:
        context.verify_mode = ssl.CERT_NONE
    elif root == "system":
        context.load_default_certs()
    else:
        try:
            context.load_verify_locations(root)
        except (OSError, ssl.SSLError) as error:
            raise UsageError(
                f"expected PEM certificates in sslrootcert {str(root)!r}, "
                f"could not load them: {error}"
            ) from error
    return context


def tls_wrapper(parameters: ConnectionParameters) -> Callable[[socket.socket], ssl.SSLSocket]:
    """Return what turns a connected socket into a TLS one, the handshake still to be done.

    Raises what `tls_context` raises.
    """
    context = tls_context(parameters)

    def wrap(connected: socket.socket) -> ssl.SSLSocket:
        return context.wrap_socket(
            connected,
            server_hostname=parameters.host or None,
            do_handshake_on_connect=False,
            suppress_ragged_eofs=True,
        )

    return wrap


def _root_certificates(parameters: ConnectionParameters) -> Path | str | None:
    """Return what the server's certificate is checked against; None: nothing, it is not checked.

    As in libpq, a root file that exists is used in the weaker modes as well.
    """
    if parameters.sslrootcert == "system":
        return "system"
    verify = parameters.sslmode in ("verify-ca", "verify-full")
    path = Path(parameters.sslrootcert or "~/.postgresql/root.crt")
    # A process whose user has no home has no root.crt there either.
    with contextlib.suppress(RuntimeError):
        path = path.expanduser()
    if path.exists():
        return path
    if verify or parameters.sslrootcert:
        raise UsageError(
            f"sslmode={parameters.sslmode} checks the server's certificate against {str(path)!r}, "
            "which does not exist; name a file in sslrootcert, or use sslrootcert=system"
        )
    return None
