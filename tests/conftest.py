"""Fixtures that all tests share, and what pytest's header says of the run.

A live test takes `cluster` or `database` and runs once for each major version. A test of the codec
takes `codec` and runs on both twins; one that takes `connect` or `flavour` runs on the flavours
that its mark names (tests/support/flavours.py).

What only live tests need (psycopg, cryptography) is imported by their fixtures, so that the unit
tests run in an environment without it.
"""

from __future__ import annotations

import faulthandler
import importlib
import os
import signal
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.support.flavours import BLOCKING, TWINS, Flavour, twin
from tests.support.versions import GIVEN, cluster_names, live_is_required

if TYPE_CHECKING:
    from tests.support.certificates import CertificateSet
    from tests.support.clusters import Cluster, Clusters, Database


def pytest_configure() -> None:
    # A shell makes what it starts in the background deaf to Ctrl-C, which some tests are about.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_setup() -> None:
    # The long form of a test has a timeout of its own; this one would end the whole run.
    if os.environ.get("PGREPL_LONG") == "1":
        faulthandler.cancel_dump_traceback_later()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "flavour" in metafunc.fixturenames:
        named = metafunc.definition.get_closest_marker("flavours")
        names = named.args if named else BLOCKING
        metafunc.parametrize("flavour", names, indirect=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    if config.getvalue("dist") != "load":
        return None
    return importlib.import_module("tests.support.work_units").WorkUnits(config, log)


def pytest_report_header() -> list[str]:
    return [f"pgrepl: {_implementation()}", f"servers: {', '.join(_servers())}"]


def _implementation() -> str:
    try:
        return f"codec {importlib.import_module('pgrepl').__impl__}"
    except (ImportError, AttributeError) as error:
        return f"cannot be imported ({error})"


def _servers() -> Iterator[str]:
    try:
        servers = importlib.import_module("tests.support.servers")
    except ImportError as error:
        yield f"none ({error})"
        return
    for name in cluster_names():
        try:
            yield "PGREPL_TEST_DSN" if name == GIVEN else str(servers.find(name) or f"no {name}")
        except servers.UnusablePrograms as error:
            yield str(error)


def _cannot_run(reason: str) -> NoReturn:
    if live_is_required():
        pytest.fail(f"PGREPL_REQUIRE_LIVE=1, but: {reason}")
    pytest.skip(reason)


def _import(name: str, needs: str) -> ModuleType:
    """A module of tests.support that stands on the third-party package `needs`."""
    try:
        return importlib.import_module(f"tests.support.{name}")
    except ModuleNotFoundError as error:
        if error.name != needs:
            raise
        _cannot_run(f'needs {needs}: run  pip install "pgrepl[test]"')


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> CertificateSet:
    """A test CA and its certificates: right, wrong host, expired, self-signed, client."""
    made: CertificateSet = _import("certificates", "cryptography").CertificateSet.write(
        tmp_path_factory.mktemp("certificates"), client_name="u_cert"
    )
    return made


@pytest.fixture(scope="session")
def clusters(certificates: CertificateSet) -> Iterator[Clusters]:
    """The servers of this session, started as they are asked for."""
    running: Clusters = _import("clusters", "psycopg").Clusters(certificates)
    yield running
    running.close()


@pytest.fixture(
    scope="session", params=[pytest.param(n, marks=pytest.mark.live) for n in cluster_names()]
)
def cluster(request: pytest.FixtureRequest, clusters: Clusters) -> Cluster:
    """A running server: each major version in turn."""
    no_server: type[Exception] = _import("clusters", "psycopg").NoServer
    try:
        return clusters.get(request.param)
    except no_server as error:
        _cannot_run(str(error))


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Database]:
    """An empty database on `cluster`, dropped afterwards together with its slots."""
    with cluster.new_database() as fresh:
        yield fresh


@pytest.fixture(scope="session", params=list(TWINS))
def codec(request: pytest.FixtureRequest) -> ModuleType:
    """The codec's twins, one after the other."""
    return twin(request.param)


@pytest.fixture
def flavour(request: pytest.FixtureRequest) -> Flavour:
    """The flavours that the test's mark names, one after the other; else the blocking ones."""
    return Flavour(request.param)


@pytest.fixture
def connect(flavour: Flavour) -> Iterator[Callable[..., Any]]:
    """`pgrepl.connect` on the flavour; a test takes an asynchronous one for a blocking one."""
    with flavour.connecting() as connect:
        yield connect
