"""``pgrepl basebackup`` as its users run it: a process, on real servers."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pgrepl.testing import TemporaryServer
from pgrepl.testing.server_account import give, server_account
from tests.live.program import complaint, on_terminal, read_until, run, running
from tests.live.streams import PATIENCE, eventually
from tests.live.wal_archives import cluster_of
from tests.support.backups import restored_server

pytest.importorskip("click")


@pytest.fixture(scope="module")
def server(programs: Path) -> Iterator[TemporaryServer]:
    with TemporaryServer(programs) as made:
        cluster_of(made).execute("CREATE TABLE t AS SELECT generate_series(1, 1000) AS a")
        yield made


def basebackup(server: TemporaryServer, target: Path, *words: str) -> str:
    """What a run prints that must succeed, without a word on stderr."""
    status, out, err = run("basebackup", server.dsn(), "-D", str(target), "-c", "fast", *words)
    assert (status, err) == (0, "")
    return out


def slots(server: TemporaryServer) -> list[Any]:
    return [
        name for (name,) in cluster_of(server).execute("SELECT slot_name FROM pg_replication_slots")
    ]


def verify(server: TemporaryServer, folder: Path, *words: str) -> None:
    program = server.bin_directory / "pg_verifybackup"
    subprocess.run([program, *words, folder], check=True, capture_output=True)


def test_a_server_starts_from_it(server: TemporaryServer, programs: Path, tmp_path: Path) -> None:
    said = basebackup(server, tmp_path / "data")
    assert said.startswith(f"base backup in {tmp_path / 'data'}: ")
    verify(server, tmp_path / "data")
    with restored_server(programs, lambda target: (tmp_path / "data").rename(target)) as restored:
        assert cluster_of(restored).execute("SELECT count(*) FROM t") == [(1000,)]


@pytest.mark.parametrize("method", ["none", "fetch", "stream", "n", "f", "s"])
@pytest.mark.parametrize("form", ["plain", "tar", "p", "t"])
def test_formats_and_wal(server: TemporaryServer, tmp_path: Path, form: str, method: str) -> None:
    target = tmp_path / "backup"
    told = json.loads(basebackup(server, target, "-F", form, "-X", method, "--json", "-N"))
    assert list(told) == [
        *("directory", "format", "files", "manifest", "wal_method", "timeline", "start_lsn"),
        *("end_lsn", "received_bytes", "tablespaces"),
    ]
    assert told["directory"] == str(target)
    assert told["format"][0] == form[0]
    assert told["wal_method"][0] == method[0]
    assert Path(told["manifest"]) == target / "backup_manifest"
    if form[0] == "t":
        archives = ["base.tar", *(["pg_wal.tar"] if method[0] == "s" else [])]
        assert told["files"] == archives
        assert {path.name for path in target.iterdir()} == {*archives, "backup_manifest"}
    else:
        assert told["files"] == []
        verify(server, target, *(["--no-parse-wal"] if method[0] == "n" else []))


def test_tablespaces(server: TemporaryServer, tmp_path: Path) -> None:
    cluster = cluster_of(server)
    folder = server.folder / "a=b"
    folder.mkdir()
    give(folder, server_account())
    cluster.execute(f"CREATE TABLESPACE space LOCATION '{folder}'")
    try:
        cluster.execute("CREATE TABLE moved TABLESPACE space AS SELECT 7")
        words = ("basebackup", server.dsn(), "-c", "fast", "-D", str(tmp_path / "data"))
        assert "expected -T OLD=NEW (--tablespace-mapping) for the tablespace in '" in complaint(
            *words
        )
        assert not (tmp_path / "data").exists()
        escaped = str(folder).replace("=", "\\=")
        mapping = f"{escaped}={tmp_path / 'space'}"
        told = json.loads(basebackup(server, tmp_path / "data", "-T", mapping, "--json"))
        [space] = told["tablespaces"]
        assert space["location"] == str(folder)
        assert space["directory"] == str(tmp_path / "space")
        verify(server, tmp_path / "data")
    finally:
        cluster.execute("DROP TABLE moved")
        cluster.execute("DROP TABLESPACE space")


def test_slots(server: TemporaryServer, tmp_path: Path) -> None:
    basebackup(server, tmp_path / "1", "--slot", "mine", "--create-slot")
    assert slots(server) == ["mine"]
    words = ("basebackup", server.dsn(), "-c", "fast", "-D", str(tmp_path / "2"), "--slot", "mine")
    assert "42710" in complaint(*words, "-C")
    assert slots(server) == ["mine"]
    basebackup(server, tmp_path / "2", "-S", "mine")
    cluster_of(server).execute("SELECT pg_drop_replication_slot('mine')")
    assert "42704" in complaint(*words[:5], str(tmp_path / "3"), "-S", "mine")
    basebackup(server, tmp_path / "3", "--no-slot")
    assert slots(server) == []


def test_manifests(server: TemporaryServer, tmp_path: Path) -> None:
    told = json.loads(basebackup(server, tmp_path / "1", "--no-manifest", "--json"))
    assert told["manifest"] is None
    assert not (tmp_path / "1" / "backup_manifest").exists()
    basebackup(server, tmp_path / "2", "--manifest-checksums", "sha224", "--manifest-force-encode")
    manifest = (tmp_path / "2" / "backup_manifest").read_text()
    assert '"SHA224"' in manifest
    assert '"Encoded-Path"' in manifest


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-D", "x", "-X", "fetch", "--slot", "s"],
        ["-D", "x", "--no-slot", "--slot", "s"],
        ["-D", "x", "--create-slot"],
        ["-D", "x", "--gzip"],
        ["-D", "x", "-Z", "client-gzip"],
        ["-D", "x", "-Z", "nothing"],
        ["-D", "x", "-Z", "gzip:10"],
        ["-D", "x", "-F", "tar", "-T", "/a=/b"],
        ["-D", "x", "-T", "/a"],
        ["-D", "x", "-T", "a=/b"],
        ["-D", "x", "-T", "/a=b"],
        ["-D", "x", "-T", "/a=/b=/c"],
        ["-D", "x", "-T", "/a=/b", "-T", "/a=/c"],
        ["-D", "x", "-r", "31"],
        ["-D", "x", "-r", "1025M"],
        ["-D", "x", "-r", "1G"],
        ["-D", "x", "-X", "all"],
        ["-D", "x", "--no-manifest", "--manifest-checksums", "NONE"],
        ["-D", "x", "--no-manifest", "--manifest-force-encode"],
    ],
)
def test_mistakes(words: list[str]) -> None:
    status, out, _ = run("basebackup", "host=/nowhere", *words)
    assert (status, out) == (2, "")


def test_directories_that_cannot_be_used(server: TemporaryServer, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "dear").write_text("dear")
    words = ("basebackup", server.dsn(), "-D")
    assert "to be an empty directory" in complaint(*words, str(full))
    assert "to be a directory that can be" in complaint(*words, str(full / "dear"))
    assert [path.name for path in full.iterdir()] == ["dear"]
    assert "Connection refused" in complaint("basebackup", "host=127.0.0.1 port=1", "-D", "x")


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals(
    server: TemporaryServer, tmp_path: Path, number: int, status: int, clean: bool
) -> None:
    """They end it at once, and nothing of it stays, here or at the server."""
    target = tmp_path / "data"
    words = ("basebackup", server.dsn(), "-D", str(target), "-c", "fast", "-r", "1M")
    with running(*words, *([] if clean else ["--no-clean"])) as process:
        eventually(lambda: (target / "base").exists(), "it has begun")
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE) == ("", "")
        assert process.returncode == status
    assert target.exists() != clean
    assert not (target / "backup_manifest").exists()
    eventually(lambda: slots(server) == [], "the slot is gone")


def test_a_signal_while_the_checkpoint_is_waited_for(
    server: TemporaryServer, tmp_path: Path
) -> None:
    cluster = cluster_of(server)
    cluster.execute("CREATE TABLE dirty AS SELECT generate_series(1, 300000)")
    try:
        words = ("basebackup", server.dsn(), "-D", str(tmp_path / "data"), "-P")
        with running(*words) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "waiting for the checkpoint\n"
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE)
            assert process.returncode == 130
        assert not (tmp_path / "data").exists()
    finally:
        cluster.execute("DROP TABLE dirty")
        cluster.execute("CHECKPOINT")


def test_progress(server: TemporaryServer, tmp_path: Path) -> None:
    words = ("basebackup", server.dsn(), "-c", "fast", "-P", "-D")
    status, out, err = run(*words, str(tmp_path / "1"))
    assert (status, out.count("\n")) == (0, 1)
    assert err.startswith("waiting for the checkpoint\nreceiving: 0 bytes of about ")
    assert "(100 %)\n" in err
    with on_terminal(*words, str(tmp_path / "2"), "-r", "20M") as (process, terminal):
        shown = read_until(terminal, "base backup in ")
        assert process.wait(PATIENCE) == 0
    assert "receiving" in shown
    assert "\x1b[" in shown
