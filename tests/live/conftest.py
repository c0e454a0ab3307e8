"""Fixtures of the live tests alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.clusters import Cluster

_VARIABLES = ("HOST", "PORT", "USER", "PASSWORD", "DATABASE", "SSLMODE")


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """None of the caller's PG* variables, nor the certificates of his home."""
    for name in _VARIABLES:
        monkeypatch.delenv(f"PG{name}", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def own_cluster(cluster: Cluster) -> Cluster:
    """A cluster with the accounts of tests.support.clusters, that may be stopped; else a skip."""
    assert cluster.own.is_running
    return cluster


@pytest.fixture
def tls_cluster(own_cluster: Cluster) -> Cluster:
    """A cluster of ours that has TLS; else a skip."""
    if not own_cluster.has_tls:
        pytest.skip(f"this build of PostgreSQL {own_cluster.version} has no TLS")
    return own_cluster
