"""Which servers a conninfo names, and what the service file and the password file say of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from pgrepl.conninfo import Host, locations, resolve
from pgrepl.errors import UsageError
from pgrepl.secret import Secret
from tests.support.conninfos import no_surroundings

posix = pytest.mark.skipif(os.name == "nt", reason="Windows has neither sockets nor permissions")


@pytest.fixture(autouse=True)
def home(tmp_path: Path) -> Iterator[Path]:
    """The folder where the files are looked for."""
    with no_surroundings(tmp_path):
        yield tmp_path


def servers(conninfo: str) -> list[tuple[str, str | None, int]]:
    return [(each.host, each.hostaddr, each.port) for each in resolve(conninfo, {}).hosts]


def passwords(conninfo: str, **keywords: object) -> list[str | None]:
    hosts = resolve(f"user=u {conninfo}", keywords, replication=None).hosts
    return [None if each.password is None else each.password.reveal() for each in hosts]


# Hosts


@pytest.mark.parametrize(
    ("conninfo", "expected"),
    [
        ("host=a", [("a", None, 5432)]),
        ("host=a,b,c", [("a", None, 5432), ("b", None, 5432), ("c", None, 5432)]),
        ("host=a,b port=1", [("a", None, 1), ("b", None, 1)]),
        ("host=a,b port=1,2", [("a", None, 1), ("b", None, 2)]),
        ("host=a,b port=,2", [("a", None, 5432), ("b", None, 2)]),
        ("host=a,b port=''", [("a", None, 5432), ("b", None, 5432)]),
        ("hostaddr=1.2.3.4", [("", "1.2.3.4", 5432)]),
        ("hostaddr=1.2.3.4,::1 port=1", [("", "1.2.3.4", 1), ("", "::1", 1)]),
        ("host=a,b hostaddr=::1,", [("a", "::1", 5432), ("b", None, 5432)]),
        ("host=,b hostaddr=::1,::2", [("", "::1", 5432), ("b", "::2", 5432)]),
        ("hostaddr='' host=a", [("a", None, 5432)]),
        ("host=/tmp/x,@y,::1", [("/tmp/x", None, 5432), ("@y", None, 5432), ("::1", None, 5432)]),
        ("postgresql://a:1,b,[::1]:3/d", [("a", None, 1), ("b", None, 5432), ("::1", None, 3)]),
        ("host=a,a", [("a", None, 5432), ("a", None, 5432)]),
        ("host=' a'", [(" a", None, 5432)]),
    ],
)
def test_servers(conninfo: str, expected: list[tuple[str, str | None, int]]) -> None:
    assert servers(conninfo) == expected


@posix
def test_the_default_host_is_where_a_socket_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = tuple(str(home / name) for name in ("one", "two"))
    monkeypatch.setattr("pgrepl.conninfo.hosts.SOCKET_FOLDERS", folders)
    assert servers("") == [(folders[0], None, 5432)]
    (home / "two").mkdir()
    (home / "two" / ".s.PGSQL.7").touch()
    assert servers("host=,a port=7") == [(folders[1], None, 7), ("a", None, 7)]
    assert servers("port=8,7 host=,") == [(folders[0], None, 8), (folders[1], None, 7)]
    # Looked up as localhost, whichever it is, and as itself.
    (home / ".pgpass").write_text(f"localhost:7:*:*:first\n{folders[0]}:8:*:*:second\n")
    (home / ".pgpass").chmod(0o600)
    assert passwords("port=8,7 host=,") == ["second", "first"]
    assert passwords(f"port=7 host={home}/three") == [None]


@posix
def test_the_default_host_where_folders_cannot_be_searched(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", refused)
    assert servers("") == [(locations.SOCKET_FOLDERS[0], None, 5432)]


@pytest.mark.parametrize(
    ("host", "where"),
    [
        (Host("h", None, 5433), "h:5433"),
        (Host("::1", None, 5433), "[::1]:5433"),
        (Host("/tmp/x", None, 5433), "the socket /tmp/x/.s.PGSQL.5433"),
        (Host("h", "::1", 5433), "h:5433 (::1)"),
        (Host("", "1.2.3.4", 5433), "1.2.3.4:5433"),
        (Host("", "::1", 5433), "[::1]:5433"),
    ],
)
def test_an_address_as_people_write_it(host: Host, where: str) -> None:
    assert host.where == where


# The password file


def password_file(folder: Path, content: str, name: str = "pgpass") -> Path:
    file = folder / name
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    file.chmod(0o600)
    return file


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("h:5432:d:u:p", "p"),
        ("*:*:*:*:p", "p"),
        ("x:5432:d:u:no\nh:5432:d:u:p\nh:5432:d:u:later", "p"),
        ("#h:5432:d:u:no\n\n\r\nh:5432:d:u:p\r\n", "p"),
        ("h:5432:d:u:a\\:b\\\\c:rest", "a:b\\c"),
        ("h:5432:d:u:a\\", "a\\"),
        ("h:5432:d:u:", None),
        ("h:5432:d:u:\n*:*:*:*:p", None),
        ("h:5432:d:u", None),
        ("h:5433:d:u:p", None),
        ("H:5432:d:u:p", None),
        (" h:5432:d:u:p", None),
        ("\\h:\\5432:\\d:\\u:p", "p"),
        ("\\*:*:*:*:p", None),
        ("**:*:*:*:p", None),
        ("*:*:*:*: p ", " p "),
        ("*:*:*:*:é\udcff", "é\udcff"),
        ("*:*:*:*:no\0\nh:5432:d:u:p", "p"),
    ],
)
def test_a_password_file(home: Path, content: str, expected: str | None) -> None:
    file = password_file(home, content)
    assert passwords(f"host=h dbname=d passfile={file}") == [expected]


@pytest.mark.parametrize(
    ("line", "is_it"),
    [
        ("::1:5432:a:b:u:p:p", True),
        ("\\:\\:1:5432:a\\:b:u\\:p:p", True),
        (":\\:1:*:*:*:p", True),
        ("::1::*:*:p", False),
        ("::1:*:a:b:*:p", True),
        ("::1:*:a:*:p", False),
        ("::*:*:*:p", False),
    ],
)
def test_a_colon_matches_with_and_without_a_backslash(home: Path, line: str, is_it: bool) -> None:
    file = password_file(home, line)
    conninfo = f"host=::1 dbname=a:b user=u:p passfile={file}"
    assert passwords(conninfo) == ["p" if is_it else None]


def test_a_port_is_looked_up_as_it_was_written(home: Path) -> None:
    file = password_file(home, "*:5432:*:*:p\n*:05433:*:*:q\n")
    assert passwords(f"host=h,h,h,h port=,5432,05432,05433 passfile={file}") == [
        "p",
        "p",
        None,
        "q",
    ]
    assert passwords("host=h", port=5432, passfile=file) == ["p"]


def test_which_password_file_is_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = home
    if os.name == "nt":
        folder = home / "postgresql"
        folder.mkdir()
    password_file(folder, "*:*:*:*:home", "pgpass.conf" if os.name == "nt" else ".pgpass")
    variable = password_file(home, "*:*:*:*:variable", "variable")
    argument = password_file(home, "*:*:*:*:argument", "argument")
    assert passwords("host=h") == passwords("host=h passfile=''") == ["home"]
    monkeypatch.setenv("PGPASSFILE", str(variable))
    assert passwords("host=h") == ["variable"]
    assert passwords("host=h passfile=''") == ["home"]
    assert passwords("host=h", passfile=argument) == ["argument"]
    assert passwords("host=h", passfile=home / "missing") == [None]
    # Used only where there is no other.
    assert passwords("host=h password=given") == ["given"]
    assert passwords("host=h password=''") == ["variable"]
    monkeypatch.setenv("PGPASSWORD", "environment")
    assert passwords("host=h") == ["environment"]


def test_each_server_has_its_own_password(home: Path) -> None:
    file = password_file(
        home, "a:1:*:*:of a\nb:2:*:*:of b\n1.2.3.4:3:*:*:of the address\nh:*:*:*:of h\n"
    )
    conninfo = f"passfile={file} host=a,b,,h,x hostaddr=,,1.2.3.4,1.2.3.4, port=1,2,3,3,3"
    assert passwords(conninfo) == ["of a", "of b", "of the address", "of h", None]
    assert passwords(f"{conninfo} password=one") == ["one"] * 5


def test_a_physical_connection_is_looked_up_as_replication(home: Path) -> None:
    named = password_file(home, "*:*:d:*:named\n*:*:u:*:user's\n", "named")
    for database, expected in (("", "user's"), ("dbname=d", "named"), ("dbname=e", None)):
        conninfo = f"host=h {database} passfile={named} replication=on"
        assert passwords(conninfo) == [expected]
    file = password_file(home, "*:*:replication:*:physical\n*:*:d:*:logical\n")
    cases: list[tuple[Literal["database", "physical"], str]]
    cases = [("physical", "physical"), ("database", "logical")]
    for replication, expected in cases:
        [host] = resolve(
            f"user=u host=h dbname=d passfile={file}", {}, replication=replication
        ).hosts
        assert isinstance(host.password, Secret)
        assert host.password.reveal() == expected
    assert passwords(f"host=h dbname=d passfile={file} replication=on") == ["physical"]


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o601])
def test_a_password_file_that_others_may_read(
    mode: int, home: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = password_file(home, "*:*:*:*:Zq7")
    file.chmod(mode)
    with caplog.at_level(logging.DEBUG):
        assert passwords(f"host=h,i passfile={file}") == [None, None]
    [record] = caplog.records
    assert (record.name, record.levelname) == ("pgrepl.conninfo", "WARNING")
    assert str(file) in record.getMessage()
    assert "0600" in record.getMessage()
    assert "Zq7" not in record.getMessage()


@posix
def test_a_password_file_that_is_no_file(home: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert passwords(f"host=h passfile={home}") == [None]
    assert "no plain file" in caplog.text
    caplog.clear()
    link = home / "link"
    link.symlink_to(password_file(home, "*:*:*:*:p"))
    assert passwords(f"host=h passfile={link}") == ["p"]
    assert passwords("host=h passfile='\udcff'") == [None]
    assert not caplog.records


# The service file


def service_file(home: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = home / "services"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    return file


def test_a_service(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service_file(
        home,
        "host=outside\n# ours\n\n[other]\nhost=o\n[s]trailing\n  host=h\n"
        "application_name= a 'b' # c \nport=1\nport=2\npassword=Zq7=\\\n\n"
        "scram_max_iterations=5\n[s]\nhost=again\ndbname=later",
        monkeypatch,
    )
    parameters = resolve("service=s user=u", {})
    assert servers("service=s") == [("h", None, 1)]
    assert parameters.application_name == " a 'b' # c"
    assert parameters.dbname == "u"
    assert parameters.authentication.scram_max_iterations == 5
    assert passwords("service=s") == ["Zq7=\\"]
    assert servers("service=other host=given") == [("given", None, 5432)]
    monkeypatch.setenv("PGSERVICE", "other")
    assert servers("") == [("o", None, 5432)]


def test_the_file_can_be_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = service_file(home, "[s]\nhost=h\n", monkeypatch)
    monkeypatch.setenv("PGSERVICEFILE", str(home / "missing"))
    assert servers(f"service=s servicefile={file}") == [("h", None, 5432)]
    assert resolve("service=s", {"servicefile": file}).hosts[0].host == "h"
    # Where no service is wanted, the file does not matter.
    assert servers("host=h") == [("h", None, 5432)]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[s]\nhost=h\nZq7\n", "expected keyword=value in line 3 of the service file that"),
        ("[s]\nhost = h\n", "a known connection option in line 2"),
        ("[s]\nhostname=h\n", "got 'hostname'; did you mean host?"),
        ("[s]\nZq7Xk9=h\n", "a known connection option in line 2"),
        ("[s]\nservice=t\n", "expected no service inside a service, got one in line 2"),
        ("[s]\nservicefile=t\n", "expected no servicefile inside a service, got one in line 2"),
        ("[s]\nldap://Zq7/\n", "LDAP is not supported by pgrepl, in line 2"),
        ("#" + "Zq7" * 400 + "\n[s]\n", "at most 1022 bytes in line 1"),
        ("[t]\nhost=Zq7\n", "expected a section for the service that the conninfo names"),
        ("", "expected a section for the service that the conninfo names"),
        ("[s]\nport=Zq7\n", "for port, got something else (from line 2 of the service file that"),
        ("[s]\nuser=a\0Zq7\n", "without zero bytes for user"),
        ("[s]\ngsslib=Zq7\n", "gsslib is not supported by pgrepl"),
    ],
)
def test_v20_a_service_file_that_makes_no_sense(
    content: str, words: str, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of its contents is shown."""
    service_file(home, content, monkeypatch)
    with pytest.raises(UsageError) as caught:
        resolve("service=s", {})
    assert words in str(caught.value)
    assert not any(piece in str(caught.value) for piece in ("Zq7", "Xk9"))
    assert caught.value.__context__ is None


def test_a_service_file_that_cannot_be_read(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (home / "missing", home):
        monkeypatch.setenv("PGSERVICEFILE", str(name))
        with pytest.raises(UsageError, match="expected to read the service file that PGSERVICEFIL"):
            resolve("service=s", {})
    with pytest.raises(UsageError, match=r"that the conninfo names, and could not: No such") as no:
        resolve("service=s servicefile=Zq7", {})
    assert "Zq7" not in str(no.value)


@posix
def test_a_service_file_without_an_end(home: Path) -> None:
    """It is read as far as it makes sense."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b"x" * 4096)
        with pytest.raises(UsageError, match="at most 1022 bytes in line 1"):
            resolve(f"service=s servicefile=/dev/fd/{reader}", {})
    finally:
        os.close(reader)
        os.close(writer)


def test_the_folder_of_the_system(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert locations.system_service_files() == (home / "pg_service.conf",)
    # An empty name is that of the root.
    monkeypatch.setenv("PGSYSCONFDIR", "")
    assert locations.system_service_files() == (Path("/pg_service.conf"),)
    monkeypatch.delenv("PGSYSCONFDIR")
    assert Path("/etc/postgresql-common/pg_service.conf") in locations.system_service_files()


def test_there_is_no_service_file(home: Path) -> None:
    with pytest.raises(UsageError, match=r"in ~/\.pg_service\.conf or the system's pg_service"):
        resolve("service=Zq7", {})
    (home / "pg_service.conf").write_text("[Zq7]\nhost=system\n")
    assert servers("service=Zq7") == [("system", None, 5432)]
