"""The encodings that PostgreSQL has for text, and what Python calls them.

Source: PostgreSQL documentation, "Character Set Support".
"""

from __future__ import annotations

from typing import Final

__all__ = ["SQL_ASCII", "UTF8", "encoding_named", "python_codec"]

UTF8: Final = "UTF8"
SQL_ASCII: Final = "SQL_ASCII"
"""Bytes that nobody converts or checks."""

_NO_CODEC: Final = "ascii"
_CODECS: Final = {
    UTF8: "utf-8",
    SQL_ASCII: "utf-8",  # whatever was written there, mostly
    "BIG5": "big5",
    "EUC_CN": "gb2312",
    "EUC_JP": "euc_jp",
    "EUC_JIS_2004": "euc_jis_2004",
    "EUC_KR": "euc_kr",
    "GB18030": "gb18030",
    "GBK": "gbk",
    "ISO_8859_5": "iso8859-5",
    "ISO_8859_6": "iso8859-6",
    "ISO_8859_7": "iso8859-7",
    "ISO_8859_8": "iso8859-8",
    "JOHAB": "johab",
    "KOI8R": "koi8-r",
    "KOI8U": "koi8-u",
    "LATIN1": "iso8859-1",
    "LATIN2": "iso8859-2",
    "LATIN3": "iso8859-3",
    "LATIN4": "iso8859-4",
    "LATIN5": "iso8859-9",
    "LATIN6": "iso8859-10",
    "LATIN7": "iso8859-13",
    "LATIN8": "iso8859-14",
    "LATIN9": "iso8859-15",
    "LATIN10": "iso8859-16",
    "SHIFT_JIS_2004": "shift_jis_2004",
    "SJIS": "cp932",
    "UHC": "cp949",
    "WIN866": "cp866",
    "WIN874": "cp874",
    "WIN1250": "cp1250",
    "WIN1251": "cp1251",
    "WIN1252": "cp1252",
    "WIN1253": "cp1253",
    "WIN1254": "cp1254",
    "WIN1255": "cp1255",
    "WIN1256": "cp1256",
    "WIN1257": "cp1257",
    "WIN1258": "cp1258",
}
_OTHER_NAMES: Final = {"unicode": UTF8}


def _plain(name: str) -> str:
    """Return a name as PostgreSQL compares it."""
    return "".join(filter(str.isalnum, name)).lower()


_NAMES: Final = {_plain(name): name for name in _CODECS} | _OTHER_NAMES


def encoding_named(name: str) -> str | None:
    """Return PostgreSQL's own spelling of an encoding that Python can read too, or None."""
    return _NAMES.get(_plain(name))


def python_codec(client: str | None, server: str | None) -> str:
    """Return the codec by which the text of a session is read.

    `client`: the client_encoding that was asked for, None for none; `server`: the database's
    encoding, None where the server did not tell. Text is converted to UTF-8 by the server unless it
    is sent as the database stores it: SQL_ASCII was asked for, or is the database's. Where Python
    does not have the encoding it is stored in, what is not ASCII cannot be read.
    """
    if client == SQL_ASCII:
        return _CODECS.get(server or UTF8, _NO_CODEC)
    return _CODECS[client or UTF8] if server == SQL_ASCII else _CODECS[UTF8]
