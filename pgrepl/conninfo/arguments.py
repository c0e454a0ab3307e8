"""The keywords of a conninfo as keyword arguments, for type checkers, which find misspelt ones.

What pgrepl refuses by its name is left out, so that it is found as early.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import TypeAlias, TypedDict

from ..secret import Secret

__all__ = ["ConninfoKeywords"]

# None is as good as nothing. A number may be text, and a truth value 0 or 1.
_Number: TypeAlias = str | int | None
_Path: TypeAlias = str | PurePath | None
_Secret: TypeAlias = str | Secret | None


class ConninfoKeywords(TypedDict, total=False):
    """Keyword arguments of `connect`; docs/connecting.md says what each of them means.

    For functions that pass them on: ``def service(**keywords: Unpack[ConninfoKeywords])``.
    """

    service: str | None
    servicefile: _Path
    host: _Path
    hostaddr: str | None
    port: _Number
    dbname: str | None
    target_session_attrs: str | None
    load_balance_hosts: str | None
    user: str | None
    password: _Secret
    passfile: _Path
    require_auth: str | None
    channel_binding: str | None
    scram_client_key: _Secret
    scram_server_key: _Secret
    requirepeer: str | None
    krbsrvname: str | None
    gssdelegation: _Number
    allow_cleartext_password: _Number
    scram_max_iterations: _Number
    sslmode: str | None
    sslnegotiation: str | None
    sslrootcert: _Path
    sslcert: _Path
    sslkey: _Path
    sslpassword: _Secret
    sslcertmode: str | None
    sslcrl: _Path
    sslcrldir: _Path
    sslsni: _Number
    sslcompression: _Number
    ssl_min_protocol_version: str | None
    ssl_max_protocol_version: str | None
    gssencmode: str | None
    connect_timeout: _Number | float
    keepalives: _Number
    keepalives_idle: _Number
    keepalives_interval: _Number
    keepalives_count: _Number
    tcp_user_timeout: _Number
    min_protocol_version: str | None
    max_protocol_version: str | None
    client_encoding: str | None
    options: str | None
    application_name: str | None
    fallback_application_name: str | None
