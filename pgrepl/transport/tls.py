"""TLS as libpq does it, by Python's ssl: what is offered to a server, and what is asked of it.

Law: a `TLSClient` is made for one attempt to reach one server, and reads its files then; nothing of
one attempt is used in another. Whether the certificate is good is OpenSSL's to say, within the
handshake. Whom it is for, and what the server has agreed to, is checked by `check` right after it,
before anything is sent. The errors say so in one place, for both flavours.

Source: PostgreSQL documentation, "SSL Support" (libpq) and "SSL Session Encryption".
"""

from __future__ import annotations

import ssl
from typing import Final, final

from ..conninfo.locations import certificate_file, is_there
from ..conninfo.parameters import Host, TLSSettings
from ..errors import TLSError, UsageError
from .tls_files import given_file, load_client_certificate
from .tls_names import is_for_host, name_to_send, names_of

__all__ = ["TLSClient"]

# The name by which a server, from 17 on, knows that PostgreSQL's protocol is meant; older ones
# ignore the offer.
_ALPN: Final = "postgresql"

_VERSIONS: Final = {
    "TLSv1": ssl.TLSVersion.TLSv1,
    "TLSv1.1": ssl.TLSVersion.TLSv1_1,
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}

# Numbers of X509_V_ERR_*, as OpenSSL's x509_vfy.h has them.
_ABOUT_CERTIFICATES: Final = {
    3: "; sslcrl or sslcrldir must hold a list of each authority between it and the root",
    9: "; it is not valid yet, or this machine's clock is wrong",
    10: "; have it renewed, or set this machine's clock right",
    12: "; fetch a new revocation list for sslcrl or sslcrldir",
    18: "; name it, or the authority that signs a new one, in sslrootcert",
    19: "; name its root certificate in sslrootcert, if it is to be trusted",
    20: "; name the certificate of its authority in sslrootcert",
    21: "; name the certificate of its authority in sslrootcert",
    23: "; the server needs a new one",
}
_OTHER_VERSION: Final = "; see ssl_min_protocol_version and ssl_max_protocol_version on both sides"
_OTHER_CERTIFICATE: Final = "; the server does not accept the client certificate (sslcert)"
# They may come after the handshake, which with TLS 1.3 is over for the client first.
_ABOUT_CLIENT_CERTIFICATES: Final = {
    "SSLV3_ALERT_BAD_CERTIFICATE": _OTHER_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": _OTHER_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_REVOKED": _OTHER_CERTIFICATE,
    "SSLV3_ALERT_CERTIFICATE_UNKNOWN": _OTHER_CERTIFICATE,
    "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE": _OTHER_CERTIFICATE,
    "TLSV13_ALERT_CERTIFICATE_REQUIRED": "; the server wants a client certificate (sslcert)",
    "TLSV1_ALERT_DECRYPT_ERROR": _OTHER_CERTIFICATE,
    "TLSV1_ALERT_UNKNOWN_CA": "; the server does not know the authority of the client certificate "
    "(sslcert)",
}
_ABOUT_HANDSHAKES: Final = {
    **_ABOUT_CLIENT_CERTIFICATES,
    "UNSUPPORTED_PROTOCOL": _OTHER_VERSION,
    "TLSV1_ALERT_PROTOCOL_VERSION": _OTHER_VERSION,
    "NO_PROTOCOLS_AVAILABLE": _OTHER_VERSION,
    "WRONG_VERSION_NUMBER": "; what came is no TLS",
}
# What OpenSSL says where the connection has ended; the system's own errors have no reason. It is
# also how a server answers that takes the handshake for a packet with an absurd length.
_HUNG_UP: Final = ("", "UNEXPECTED_EOF_WHILE_READING")


@final
class TLSClient:
    """The client's side of TLS with one server."""

    def __init__(self, settings: TLSSettings, host: Host) -> None:
        """Read the files that the settings name.

        Raises `UsageError` where one is missing or of no use, and where there is no name that a
        certificate could be checked for.
        """
        self._settings: Final = settings
        self._host: Final = host
        self._verifies_host: Final = settings.sslmode == "verify-full"
        if self._verifies_host and not host.host:
            raise UsageError(
                "sslmode=verify-full checks for which host the server's certificate is, and there "
                f"is only hostaddr={host.hostaddr}; give the name as host, next to hostaddr, or "
                "use sslmode=verify-ca"
            )
        self._context: Final = _context(settings)
        self._sent_name: Final = name_to_send(host.host) if settings.sslsni else None

    @property
    def is_direct(self) -> bool:
        """Whether TLS begins at once, without being asked for."""
        return self._settings.sslnegotiation == "direct"

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO) -> ssl.SSLObject:
        """Return TLS in memory, the handshake still to be done. Raises `TLSError`."""
        try:
            return self._context.wrap_bio(incoming, outgoing, server_hostname=self._sent_name)
        except (ssl.SSLError, ValueError) as error:
            raise self._unusable(error) from error

    def check(self, session: ssl.SSLObject) -> None:
        """Check, right after the handshake, what has been agreed on. Raises `TLSError`; the
        connection is of no use then."""
        protocol = session.selected_alpn_protocol()
        if protocol != _ALPN and (protocol is not None or self.is_direct):
            raise TLSError(
                f"expected {self._host.where} to agree on the protocol {_ALPN!r} (ALPN), got "
                f"{protocol!a}: "
                + (
                    "sslnegotiation=direct needs PostgreSQL 17 or later, or a proxy that knows it"
                    if protocol is None
                    else "something else than PostgreSQL listens there"
                )
            )
        if self._verifies_host:
            self._check_host(session)

    def _check_host(self, session: ssl.SSLObject) -> None:
        try:
            certificate = session.getpeercert() or {}
        except UnicodeDecodeError:
            certificate = {}
        if not is_for_host(certificate, self._host.host):
            raise TLSError(
                "the server's certificate is not acceptable: it is for "
                f"{_shown(names_of(certificate))}, not for the host {self._host.host!r}; connect "
                "by a name that it has, the address as hostaddr, or have one issued for this host"
            )

    def failure(self, error: OSError) -> TLSError:
        """Return what to say of an error in the handshake."""
        if isinstance(error, ssl.SSLCertVerificationError):
            advice = _ABOUT_CERTIFICATES.get(error.verify_code, "")
            return TLSError(
                "the server's certificate is not acceptable: "
                f"{error.verify_message} ({self._host.where}){advice}"
            )
        reason = (isinstance(error, ssl.SSLError) and error.reason) or ""
        advice = _ABOUT_HANDSHAKES.get(reason, "")
        if self.is_direct and reason in (*_HUNG_UP, "WRONG_VERSION_NUMBER"):
            advice = "; sslnegotiation=direct needs PostgreSQL 17 or later"
        what = reason.replace("_", " ").lower() or str(error)
        return TLSError(
            f"the TLS handshake with the server failed: {what} ({self._host.where}){advice}",
            interrupted=reason in _HUNG_UP and not self.is_direct,
        )

    def refusal(self, error: Exception) -> TLSError | None:
        """Return what to say of an error after the handshake, if it is what the server has to say
        of the handshake; None for any other."""
        if isinstance(error, ssl.SSLError) and error.reason in _ABOUT_CLIENT_CERTIFICATES:
            failure = self.failure(error)
            failure.after_handshake = True
            return failure
        return None

    def _unusable(self, error: Exception) -> TLSError:
        return TLSError(f"TLS could not be set up for {self._host.where}: {error}")


def _context(settings: TLSSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # For which host a certificate is, is checked after the handshake: see tls_names.
    context.check_hostname = False
    context.minimum_version = (
        _VERSIONS[settings.ssl_min_protocol_version]
        if settings.ssl_min_protocol_version
        else ssl.TLSVersion.MINIMUM_SUPPORTED
    )
    if settings.ssl_max_protocol_version:
        context.maximum_version = _VERSIONS[settings.ssl_max_protocol_version]
    # PostgreSQL does not renegotiate; whoever asks for it is somebody else.
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([_ALPN])
    _leave_out_finite_fields(context)
    if _trust_roots(context, settings):
        _load_revocation_lists(context, settings)
    else:
        context.verify_mode = ssl.CERT_NONE
    load_client_certificate(context, settings)
    return context


def _leave_out_finite_fields(context: ssl.SSLContext) -> None:
    """Of the ciphers that Python has chosen, leave out those of Diffie-Hellman without curves.

    There a server says how long the numbers are, and 10000 bits cost most of a second. What can do
    TLS 1.2 has curves as well.
    """
    chosen = [each for each in context.get_ciphers() if each.get("protocol") != "TLSv1.3"]
    left = [each["name"] for each in chosen if each.get("kea") != "kx-dhe"]
    if left and len(left) < len(chosen):
        context.set_ciphers(":".join(left))


def _trust_roots(context: ssl.SSLContext, settings: TLSSettings) -> bool:
    """Load what the server's certificate is checked against; False: it is not checked.

    As in libpq, a root file that exists is used in the weaker modes as well. Other than there, one
    that was named and does not exist is an error in all of them.
    """
    given = settings.sslrootcert
    if given == "system":
        context.load_default_certs()
        return True
    root = given_file(given) if given else certificate_file("root.crt")
    if root is None or not is_there(root):
        if given or settings.sslmode.startswith("verify"):
            raise UsageError(
                f"sslmode={settings.sslmode} checks the server's certificate against "
                f"{str(root or '~/.postgresql/root.crt')!r}, which does not exist; name a file in "
                "sslrootcert, or use sslrootcert=system"
            )
        return False
    try:
        context.load_verify_locations(root)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"expected PEM certificates in sslrootcert {str(root)!r}, could not load them: {error}"
        ) from error
    return True


def _load_revocation_lists(context: ssl.SSLContext, settings: TLSSettings) -> None:
    """Have every certificate of the chain looked up in lists of revoked ones.

    As in libpq, a file that is not there is passed over.
    """
    lists = given_file(settings.sslcrl) if settings.sslcrl else None
    folder = given_file(settings.sslcrldir) if settings.sslcrldir else None
    if lists is None and folder is None and settings.sslrootcert != "system":
        lists = certificate_file("root.crl")
    if lists is not None and not is_there(lists):
        lists = None
    if lists is None and folder is None:
        return
    try:
        context.load_verify_locations(lists, folder)
    except (OSError, ssl.SSLError) as error:
        raise UsageError(
            f"expected PEM revocation lists in sslcrl {str(lists)!r}, could not load them: {error}"
        ) from error
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN


def _shown(names: list[str]) -> str:
    """Whom a certificate is for, in a sentence; an authority may sign what is not fit to print."""
    if not names:
        return "nobody"
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(ascii(name[:100]) for name in names[:3]) + more
