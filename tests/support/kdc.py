"""A Kerberos realm in a temporary folder: a KDC of MIT Kerberos, principals and their keytabs.

Needs the programs of Debian's krb5-kdc and krb5-admin-server; nothing runs as root, nothing outside
the folder is read or written, and no name is looked up in the DNS.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pgrepl.testing.addresses import HOST

REALM: Final = "PGREPL.TEST"

_PROGRAMS: Final = ("krb5kdc", "kdb5_util", "kadmin.local")
_SYSTEM_FOLDERS: Final = "/usr/sbin:/usr/local/sbin:/sbin"
_PATIENCE: Final = 30.0

_CONFIGURATION: Final = """\
[libdefaults]
  default_realm = {realm}
  dns_lookup_kdc = false
  dns_lookup_realm = false
  dns_canonicalize_hostname = false
  rdns = false
  forwardable = true
[realms]
  {realm} = {{
    kdc = {host}:{port}
  }}
"""

_KDC_CONFIGURATION: Final = """\
[realms]
  {realm} = {{
    database_name = {folder}/principal
    key_stash_file = {folder}/stash
    acl_file = {folder}/acl
    kdc_listen = {host}:{port}
    kdc_tcp_listen = {host}:{port}
  }}
[logging]
  kdc = FILE:{folder}/kdc.log
"""


class NoKDC(Exception):
    """There is no Kerberos here; the text says what is missing."""


class KDC:
    """A realm as long as a `with` lasts."""

    def __init__(self) -> None:
        path = f"{os.environ.get('PATH', '')}:{_SYSTEM_FOLDERS}"
        self._programs = {name: shutil.which(name, path=path) or "" for name in _PROGRAMS}
        missing = [name for name, found in self._programs.items() if not found]
        if missing:
            raise NoKDC(
                f"no {', '.join(missing)}: install the packages krb5-kdc and krb5-admin-server"
            )
        self.folder = Path()
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.folder = Path(tempfile.mkdtemp(prefix="pgrepl-kdc-"))
        try:
            # A PostgreSQL server of another user reads the configuration, and nothing else.
            self.folder.chmod(0o711)
            self._configure()
            self._run("kdb5_util", "create", "-s", "-r", REALM, "-P", "master")
            self._start()
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._remove()

    @property
    def configuration(self) -> Path:
        """What KRB5_CONFIG is to name."""
        return self.folder / "krb5.conf"

    def keytab(self, name: str, *principals: str) -> Path:
        """Make principals and return a keytab with their keys."""
        path = self.folder / f"{name}.keytab"
        for principal in principals:
            self._run("kadmin.local", "-r", REALM, "addprinc", "-randkey", principal)
            self._run("kadmin.local", "-r", REALM, "ktadd", "-k", str(path), principal)
        return path

    @property
    def _environment(self) -> dict[str, str]:
        ours = {
            "KRB5_CONFIG": str(self.configuration),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
        }
        return {**os.environ, **ours}

    def _configure(self) -> None:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = probe.getsockname()[1]
        words = {"realm": REALM, "host": HOST, "port": port, "folder": self.folder}
        self.configuration.write_text(_CONFIGURATION.format(**words))
        self.configuration.chmod(0o644)
        (self.folder / "kdc.conf").write_text(_KDC_CONFIGURATION.format(**words))
        self._port = port

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs[program], *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout} {done.stderr}")

    def _start(self) -> None:
        with (self.folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [self._programs["krb5kdc"], "-n", "-r", REALM],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                socket.create_connection((HOST, self._port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"krb5kdc does not run: {(self.folder / 'output').read_text()}")

    def _remove(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
        shutil.rmtree(self.folder, ignore_errors=True)
