"""Connection strings and what they say, by hand: every corner of the grammar.

Law: nothing here uses pgrepl, nor libpq; both are held to it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

__all__ = ["BAD", "GOOD", "no_surroundings"]


@contextmanager
def no_surroundings(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """What is read depends neither on who runs the tests, nor on the machine's own files."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith("PG") and not name.startswith("PGREPL"):
                patch.delenv(name)
        for name in ("HOME", "APPDATA", "PGSYSCONFDIR"):
            patch.setenv(name, str(folder))
        yield patch


GOOD: Final[dict[str, dict[str, str]]] = {
    # keyword=value: white space
    "": {},
    "   \n\t": {},
    "host=a": {"host": "a"},
    "  host=a  ": {"host": "a"},
    "host = a   port\t=\n5433": {"host": "a", "port": "5433"},
    "host=a\fport=5433\vuser=u\rdbname=d": {
        "host": "a",
        "port": "5433",
        "user": "u",
        "dbname": "d",
    },
    "user= dbname=x": {"user": "dbname=x"},
    "user=\n\n u": {"user": "u"},
    "user=": {"user": ""},
    "user= ": {"user": ""},
    "host=a user=": {"host": "a", "user": ""},
    "password=p\xa0q\x1cr\u2003s\x85": {"password": "p\xa0q\x1cr\u2003s\x85"},  # space to Python
    # keyword=value: quotes and escapes
    "password='a b'": {"password": "a b"},
    "password=''": {"password": ""},
    r"password='a\'b\\c'": {"password": r"a'b\c"},
    r"password=a\ b\'c\\d": {"password": r"a b'c\d"},
    r"password='a\bc'": {"password": "abc"},
    r"password=a\bc": {"password": "abc"},
    "password=abc\\": {"password": "abc"},
    "password=\\": {"password": ""},
    "password=a\\\nb": {"password": "a\nb"},
    "password=a'b'": {"password": "a'b'"},
    r"password=\'a port=1": {"password": "'a", "port": "1"},
    "password=a=b": {"password": "a=b"},
    "password==": {"password": "="},
    "password='a\nb'": {"password": "a\nb"},
    "host='a'port=5433": {"host": "a", "port": "5433"},
    "host=''port=''": {"host": "", "port": ""},
    "password='é€😀'": {"password": "é€😀"},
    # keyword=value: keywords
    "host=a host=b": {"host": "b"},
    "host=a host=''": {"host": ""},
    "dbname=postgresql://h/d": {"dbname": "postgresql://h/d"},
    "dbname='host=a port=1'": {"dbname": "host=a port=1"},
    "application_name='a app' options='-c a=b' sslmode=require": {
        "application_name": "a app",
        "options": "-c a=b",
        "sslmode": "require",
    },
    "sslmode=whatever port=x": {"sslmode": "whatever", "port": "x"},
    "requiressl=1": {"sslmode": "require"},
    "requiressl=10": {"sslmode": "require"},
    "requiressl=0": {"sslmode": "prefer"},
    "requiressl=": {"sslmode": "prefer"},
    "requiressl=true": {"sslmode": "prefer"},
    "sslmode=disable requiressl=1": {"sslmode": "require"},
    "requiressl=1 sslmode=disable": {"sslmode": "disable"},
    "service=s passfile=/p": {"service": "s", "passfile": "/p"},
    # keyword=value: several hosts
    "host=a,b,c port=1,2,3": {"host": "a,b,c", "port": "1,2,3"},
    "host=a, port=5433": {"host": "a,", "port": "5433"},
    "host=,/tmp,@x,::1 hostaddr=,,, port=,": {
        "host": ",/tmp,@x,::1",
        "hostaddr": ",,,",
        "port": ",",
    },
    # URI: nothing, authority, path
    "postgresql://": {},
    "postgres://": {},
    "postgres://h": {"host": "h"},
    "postgresql:///": {},
    "postgresql://?": {},
    "postgresql:///?": {},
    "postgresql://h:5433/d": {"host": "h", "port": "5433", "dbname": "d"},
    "postgresql://h:port": {"host": "h", "port": "port"},
    "postgresql://h:/d": {"host": "h", "dbname": "d"},
    "postgresql://:5433": {"port": "5433"},
    "postgresql://h:1:2/d": {"host": "h", "port": "1:2", "dbname": "d"},
    "postgresql://h/": {"host": "h"},
    "postgresql://h?": {"host": "h"},
    "postgresql:///d": {"dbname": "d"},
    "postgresql://h/a/b%2Fc": {"host": "h", "dbname": "a/b/c"},
    "postgresql://h//d": {"host": "h", "dbname": "/d"},
    "postgresql://h/d@e:f": {"host": "h", "dbname": "d@e:f"},
    "postgresql://h/d#e": {"host": "h", "dbname": "d#e"},
    "postgresql://h#e": {"host": "h#e"},
    "postgresql://H": {"host": "H"},
    # URI: who
    "postgresql://u@h": {"user": "u", "host": "h"},
    "postgresql://u:p@h/d": {"user": "u", "password": "p", "host": "h", "dbname": "d"},
    "postgresql://u:p:q?r#s&t=u@h/d": {
        "user": "u",
        "password": "p:q?r#s&t=u",
        "host": "h",
        "dbname": "d",
    },
    "postgresql://u?v@h": {"user": "u?v", "host": "h"},
    "postgresql://u,v@h": {"user": "u,v", "host": "h"},
    "postgresql://u:@h/d": {"user": "u", "host": "h", "dbname": "d"},
    "postgresql://:p@h/d": {"password": "p", "host": "h", "dbname": "d"},
    "postgresql://:@h": {"host": "h"},
    "postgresql://@h": {"host": "h"},
    "postgresql://@": {},
    "postgresql://u@": {"user": "u"},
    "postgresql://u@/d?host=/tmp/x": {"user": "u", "dbname": "d", "host": "/tmp/x"},
    "postgresql://u:p@h@i/d": {"user": "u", "password": "p", "host": "h@i", "dbname": "d"},
    "postgresql://@@h": {"host": "@h"},
    "postgresql://u:p/w@h/d": {"host": "u", "port": "p", "dbname": "w@h/d"},
    "postgresql://h?user=a%40b": {"host": "h", "user": "a@b"},
    "postgresql://h?user=a@b": {"user": "h?user=a", "host": "b"},  # no '/' before the '@'
    "postgresql://h/?user=a@b": {"host": "h", "user": "a@b"},
    # URI: several hosts
    "postgresql://a,b/d": {"host": "a,b", "port": ",", "dbname": "d"},
    "postgresql://a:1,b:2/d": {"host": "a,b", "port": "1,2", "dbname": "d"},
    "postgresql://a:1,b,c:3": {"host": "a,b,c", "port": "1,,3"},
    "postgresql://u:p@a:1,b": {"user": "u", "password": "p", "host": "a,b", "port": "1,"},
    "postgresql://,": {"host": ",", "port": ","},
    "postgresql://,,a": {"host": ",,a", "port": ",,"},
    "postgresql://:1,:2": {"host": ",", "port": "1,2"},
    "postgresql://a%2Cb:1": {"host": "a,b", "port": "1"},
    "postgresql://a:1%2C2": {"host": "a", "port": "1,2"},
    "postgresql://[::1]:1,[::2],h:3/d": {"host": "::1,::2,h", "port": "1,,3", "dbname": "d"},
    # URI: square brackets
    "postgresql://[::1]": {"host": "::1"},
    "postgresql://[::1]:5433/d": {"host": "::1", "port": "5433", "dbname": "d"},
    "postgresql://[::1]/d": {"host": "::1", "dbname": "d"},
    "postgresql://[::1]?user=u": {"host": "::1", "user": "u"},
    "postgresql://u@[::1]": {"user": "u", "host": "::1"},
    "postgresql://[fe80::1%25eth0]/d": {"host": "fe80::1%eth0", "dbname": "d"},
    "postgresql://[a/b?c,d]/e": {"host": "a/b?c,d", "dbname": "e"},
    "postgresql://[[]": {"host": "["},
    "postgresql://[::1]@h/d]": {"user": "[", "password": ":1]", "host": "h", "dbname": "d]"},
    "postgresql://[ ]": {"host": ""},
    "postgresql://]": {"host": "]"},
    "postgresql://h[": {"host": "h["},
    "postgresql://%5Bh%5D": {"host": "[h]"},
    # URI: percent escapes and spaces
    "postgresql://%2Ftmp%2Fx/d": {"host": "/tmp/x", "dbname": "d"},
    "postgresql://%40x": {"host": "@x"},
    "postgresql://%68:%35433/%64?%75ser=%75": {
        "host": "h",
        "port": "5433",
        "dbname": "d",
        "user": "u",
    },
    "postgresql://u:%40%3A%2F%3f%25%20+@h/d": {
        "user": "u",
        "password": "@:/?% +",
        "host": "h",
        "dbname": "d",
    },
    "postgresql://u:%C3%A9é%f0%9f%98%80@h/d": {
        "user": "u",
        "password": "éé😀",
        "host": "h",
        "dbname": "d",
    },
    "postgresql://%ff?host=h": {"host": "h"},  # no UTF-8, and without effect
    "postgresql://h?user=%ff&user=u": {"host": "h", "user": "u"},
    "postgresql://u:%25zz%2500@h": {"user": "u", "password": "%zz%00", "host": "h"},
    "postgresql://u:%01%7f%0a@h": {"user": "u", "password": "\x01\x7f\n", "host": "h"},
    "postgresql://u\t:\n@h": {"user": "u\t", "password": "\n", "host": "h"},
    "postgresql:// h /d ": {"host": "h", "dbname": "d"},
    "postgresql:// u : p @ h : 1 / d ? user = v ": {
        "user": "v",
        "password": "p",
        "host": "h",
        "port": "1",
        "dbname": "d",
    },
    "postgresql:// @h": {"user": "", "host": "h"},
    "postgresql:// / ": {"host": "", "dbname": ""},
    "postgresql:// a,b ": {"host": "a,b", "port": ","},
    "postgresql://%20h%20": {"host": " h "},
    # URI: query
    "postgresql://a/b?host=c&dbname=d&port=5433&user=u": {
        "host": "c",
        "dbname": "d",
        "port": "5433",
        "user": "u",
    },
    "postgresql://h?application_name=a&application_name=b&": {
        "host": "h",
        "application_name": "b",
    },
    "postgresql://h?user=": {"host": "h", "user": ""},
    "postgresql://h?host=": {"host": ""},
    "postgresql://h/d?options=-c%20a%3Db": {"host": "h", "dbname": "d", "options": "-c a=b"},
    "postgresql://h?user=a?b/c:d,e": {"host": "h", "user": "a?b/c:d,e"},
    "postgresql://h?user=a%26b%3Dc": {"host": "h", "user": "a&b=c"},
    "postgresql://h?user=a'b\\c": {"host": "h", "user": "a'b\\c"},
    "postgresql://h?ssl=true": {"host": "h", "sslmode": "require"},
    "postgresql://h?%73sl=tru%65": {"host": "h", "sslmode": "require"},
    "postgresql://h?ssl=true&sslmode=disable": {"host": "h", "sslmode": "disable"},
    "postgresql://h?requiressl=1": {"host": "h", "sslmode": "require"},
    "postgresql://h?requiressl=0&port=1": {"host": "h", "sslmode": "prefer", "port": "1"},
    "postgresql://?host=%2Ftmp&port=1,2": {"host": "/tmp", "port": "1,2"},
}

BAD: Final = [
    # keyword=value
    "host",
    "host ",
    "host a",
    "host=a port",
    "=a",
    " = a",
    "=",
    "host='a",
    "host='",
    "host='a\\'",
    "host='a\\",
    "password='a'b",
    "password='a' b",
    "password='a''b'",
    "a'b=c",
    "host=a;port=5433 x",
    "'host'=a",
    "h\\ost=a",
    "nonsense=1",
    "nonsense=",
    "HOST=a",
    "Host=a",
    "ssl=true",
    "authtype=x",
    "scram_channel_binding=x",
    "\ufeffhost=a",
    "\xa0host=a",
    "host\xa0=a",
    # Nearly a URI
    "POSTGRESQL://h",
    "Postgres://h",
    " postgresql://h",
    "postgresql:/h",
    "postgresql:h",
    "postgresq://h",
    "mysql://h/d",
    "jdbc:postgresql://h/d",
    # URI: square brackets
    "postgresql://[::1",
    "postgresql://[",
    "postgresql://[::1]x",
    "postgresql://[::1] :1",
    "postgresql://[::1]]",
    "postgresql://[]/d",
    "postgresql://[/d",
    "postgresql://a,[",
    "postgresql://u:p@[::1]#",
    # URI: query
    "postgresql://h?host",
    "postgresql://h?host&",
    "postgresql://h?host==a",
    "postgresql://h?host=a=b",
    "postgresql://h?=a",
    "postgresql://h?=",
    "postgresql://h?&",
    "postgresql://h?a=b",
    "postgresql://h?host=a&&port=1",
    "postgresql://h?&host=a",
    "postgresql://h?host=a&port",
    "postgresql://h?host%3Da",
    "postgresql://h?HOST=a",
    "postgresql://h?ssl=false",
    "postgresql://h?ssl=TRUE",
    "postgresql://h?ssl=",
    "postgresql://h?user=a?host=b",
    # URI: percent escapes and spaces
    "postgresql://u:%4@h",
    "postgresql://u:%@h",
    "postgresql://u:%zz@h",
    "postgresql://u:%4g@h",
    "postgresql://u:%%20@h",
    "postgresql://u:% 20@h",
    "postgresql://u:%+1@h",
    "postgresql://u:%٤٤@h",
    "postgresql://u:a%00b@h",
    "postgresql://%00",
    "postgresql://h/%0",
    "postgresql://h:%",
    "postgresql://h?%=a",
    "postgresql://h?user=%0g",
    "postgresql://u:a b@h",
    "postgresql://u u@h",
    "postgresql://a b",
    "postgresql://a, b",
    "postgresql://a: 1,2 ,b",
    "postgresql://h/a b",
    "postgresql://h?application_name=a b",
    "postgresql://h?us er=a",
    "postgresql://u:%ff@h",  # no UTF-8: libpq takes it, and no str can say it
    "postgresql://u:%C3@h",
    "postgresql://h?user=%ed%a0%80",
    "postgresql://h?%ff=x",
]
