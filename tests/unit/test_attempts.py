"""The search for a server, by a driver that follows a script: which attempts are made, and what
comes of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import pytest

from pgrepl.conninfo import Host
from pgrepl.errors import AuthenticationRejected, ConnectionFailed, Error, TLSError, UsageError
from pgrepl.secret import Secret
from pgrepl.transport.clock import Deadline
from tests.support.searching import (
    BROKEN,
    NO_PASSWORD,
    NO_TLS,
    REFUSED,
    Driver,
    parameters,
    reached,
    says,
    with_tls,
)

PLAIN = ["10.0.0.1 no", "10.0.0.2 no", "10.0.0.3 no", "10.0.0.4 no"]


@pytest.mark.parametrize(
    ("outcomes", "made"),
    [
        (["primary"], PLAIN[:1]),
        ([REFUSED, "primary"], PLAIN[:2]),
        ([REFUSED, REFUSED, "primary"], PLAIN[:3]),
        ([REFUSED, REFUSED, REFUSED, "primary"], PLAIN),
        # The host's other address leads to the same server.
        ([says("57P03"), "primary"], [PLAIN[0], PLAIN[2]]),
        ([REFUSED, says("57P03"), says("57P03"), "primary"], PLAIN),
        ([says("57P03"), REFUSED, "primary"], [PLAIN[0], PLAIN[2], PLAIN[3]]),
    ],
)
def test_the_next_address_and_the_next_host(outcomes: list[object], made: list[str]) -> None:
    driver = Driver(parameters("a,b,c"), *outcomes)
    assert reached(driver) == made[-1]
    assert driver.made == made


@pytest.mark.parametrize(
    "error",
    [
        says("28P01"),
        says("28000"),
        says("3D000"),
        says("53300"),
        says("57P01"),
        says("42501"),
        NO_TLS,
        BROKEN,
        NO_PASSWORD,
        UsageError("no such file"),
    ],
    ids=str,
)
def test_what_ends_the_search(error: Error) -> None:
    driver = Driver(parameters("a,b,c"), error)
    with pytest.raises(Error) as caught:
        driver.run()
    assert caught.value is error
    assert driver.made == PLAIN[:1]
    assert not hasattr(error, "__notes__")


def test_a_name_that_is_not_known_is_passed_over() -> None:
    driver = Driver(parameters("nowhere,b"), "primary")
    assert reached(driver) == "10.0.0.3 no"
    assert [asked.name for asked in driver.looked_up] == ["nowhere", "b"]
    with pytest.raises(ConnectionFailed) as caught:
        Driver(parameters("nowhere")).run()
    assert str(caught.value) == "could not find the address of host 'nowhere': unknown"


def test_hostaddr_is_not_looked_up() -> None:
    wanted = replace(parameters(), hosts=(Host("a", "192.0.2.7", 6432), Host("", "192.0.2.8")))
    driver = Driver(wanted, REFUSED, "primary")
    driver.run()
    assert all(asked.is_numeric for asked in driver.looked_up)
    assert driver.made == ["192.0.2.7 no", "192.0.2.8 no"]
    assert [a.where for a in driver.attempts] == ["a:6432 (192.0.2.7)", "192.0.2.8:5432"]
    assert driver.attempts[0].address == ("192.0.2.7", 6432)


def test_v13_each_attempt_knows_its_own_host_alone() -> None:
    wanted = replace(
        parameters(), hosts=(Host("b", None, 1, Secret("one")), Host("c", None, 2, Secret("two")))
    )
    driver = Driver(wanted, REFUSED, "primary")
    opened = driver.run()
    first, second = driver.attempts
    assert (first.parameters.hosts, second.parameters.hosts) == (wanted.hosts[:1], wanted.hosts[1:])
    password = second.host.password
    assert password is not None
    assert password.reveal() == "two"
    assert opened.way.address == ("10.0.0.4", 2)


# TLS, and what is tried without


@pytest.mark.parametrize(
    ("sslmode", "outcomes", "made"),
    [
        ("disable", ["primary"], ["no"]),
        ("allow", ["primary"], ["no"]),
        ("allow", [says("28000"), "primary"], ["no", "required"]),
        ("prefer", ["primary"], ["offered"]),
        ("prefer", [NO_TLS, "primary"], ["offered", "no"]),
        ("prefer", [says("28000"), "primary"], ["offered", "no"]),
        ("require", ["primary"], ["required"]),
        ("verify-ca", ["primary"], ["required"]),
        ("verify-full", ["primary"], ["required"]),
    ],
)
def test_v18_the_ways_of_each_sslmode(
    sslmode: str, outcomes: list[object], made: list[str]
) -> None:
    driver = Driver(with_tls("b,c", sslmode), *outcomes)
    driver.run()
    assert driver.made == [f"10.0.0.3 {way}" for way in made]


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
def test_direct(sslmode: str) -> None:
    driver = Driver(with_tls("b", sslmode, sslnegotiation="direct"), "primary")
    assert reached(driver) == "10.0.0.3 direct"
    assert driver.attempts[0].made_with(tls=True).tls == "direct"


@pytest.mark.parametrize(
    ("sslmode", "error"),
    [
        ("disable", says("28000")),
        ("allow", says("28P01")),
        ("allow", NO_PASSWORD),
        ("prefer", says("28P01")),
        ("prefer", says("3D000")),
        ("prefer", NO_PASSWORD),
        ("prefer", BROKEN),
        # TLS there was: it is the client certificate that will not do.
        ("prefer", TLSError("unknown ca", after_handshake=True)),
        ("require", NO_TLS),
        ("require", says("28000")),
        ("verify-full", NO_TLS),
        ("verify-full", says("28000")),
    ],
)
def test_v18_there_is_no_other_way(sslmode: str, error: Error) -> None:
    """A password, and what a mode requires, is never put at risk by a second attempt."""
    driver = Driver(with_tls("b,c", sslmode), error)
    with pytest.raises(Error) as caught:
        driver.run()
    assert caught.value is error
    assert len(driver.made) == 1


@pytest.mark.parametrize("sslmode", ["allow", "prefer"])
def test_an_address_that_is_not_reached_is_not_tried_in_the_other_way(sslmode: str) -> None:
    driver = Driver(with_tls("a", sslmode), REFUSED, says("28000"), REFUSED)
    with pytest.raises(ConnectionFailed) as caught:
        driver.run()
    first, second = ("no", "required") if sslmode == "allow" else ("offered", "no")
    assert driver.made == [f"10.0.0.1 {first}", f"10.0.0.2 {first}", f"10.0.0.2 {second}"]
    assert str(caught.value).splitlines()[1:] == [
        "- a:5432 (10.0.0.1): refused",
        "- a:5432 (10.0.0.2): FATAL 28000: said the server",
        "- a:5432 (10.0.0.2): refused",
    ]


def test_prefer_tells_of_both_ways() -> None:
    end = says("28000", "and not without TLS")
    driver = Driver(with_tls("b", "prefer"), NO_TLS, end)
    with pytest.raises(AuthenticationRejected) as caught:
        driver.run()
    assert caught.value is end
    assert end.__notes__ == ["Before that failed:\n- b:5432 (10.0.0.3): no TLS"]


def test_allow_says_what_the_server_said_where_tls_is_no_way_around_it() -> None:
    turned_away = says("28000", "no entry")
    no_tls = TLSError("the server does not offer TLS")
    driver = Driver(with_tls("b", "allow"), turned_away, no_tls)
    with pytest.raises(AuthenticationRejected) as caught:
        driver.run()
    assert caught.value is turned_away
    assert turned_away.__notes__ == ["With TLS: the server does not offer TLS"]


def test_a_server_that_is_starting_up_over_tls_is_not_asked_without() -> None:
    driver = Driver(with_tls("b,c", "prefer"), says("57P03"), "primary")
    driver.run()
    assert driver.made == ["10.0.0.3 offered", "10.0.0.4 offered"]


@pytest.mark.parametrize("sslmode", ["allow", "prefer", "require", "verify-full"])
def test_there_is_no_tls_on_a_unix_socket(sslmode: str) -> None:
    driver = Driver(with_tls("/run/pg,@abstract", sslmode), REFUSED, "primary")
    driver.run()
    assert driver.made == ["/run/pg/.s.PGSQL.5432 no", "\0abstract/.s.PGSQL.5432 no"]
    assert not driver.looked_up


@pytest.mark.parametrize("folder", ["/" + "x" * 95, "@" + "x" * 95, "/" + "ä" * 48])
def test_a_socket_path_that_is_too_long_is_told_before_connecting(folder: str) -> None:
    with pytest.raises(UsageError, match="expected the path of a Unix socket in at most 10"):
        Driver(parameters(folder)).run()


# Time limits


class Limits:
    """Stands for `Deadline.after`, and takes note of what it began."""

    def __init__(self) -> None:
        self.begun: list[Deadline] = []

    def __call__(self, timeout: float | None) -> Deadline:
        assert timeout == 7.0
        self.begun.append(Deadline(timeout))
        return self.begun[-1]


def test_each_address_has_the_whole_time_limit() -> None:
    limits = Limits()
    wanted = replace(with_tls("a,b", "prefer"), connect_timeout=7.0)
    driver = Driver(wanted, REFUSED, NO_TLS, REFUSED, "primary", time_limit=limits)
    driver.run()
    assert driver.made == [
        "10.0.0.1 offered",
        "10.0.0.2 offered",
        "10.0.0.2 no",
        "10.0.0.3 offered",
    ]
    used = [attempt.deadline for attempt in driver.attempts]
    # Both ways to the same address share it, and names have one of their own.
    assert used[1] is used[2]
    assert len({id(each) for each in used}) == 3
    looked_up = [asked.deadline for asked in driver.looked_up]
    assert limits.begun == [looked_up[0], used[0], used[1], looked_up[1], used[3]]


def test_time_limits_are_told() -> None:
    wanted = replace(parameters("six"), connect_timeout=2.5)
    driver = Driver(wanted, "primary")
    driver.run()
    assert str(driver.attempts[0].not_in_time()) == (
        "no connection to six:5432 (::1) within connect_timeout, 2.5 s"
    )
    assert str(driver.looked_up[0].not_in_time()) == (
        "could not find the address of host 'six': no answer within connect_timeout, 2.5 s"
    )
    assert driver.attempts[0].not_in_time().retryable


# Which session


Target = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]


@pytest.mark.parametrize(
    ("target", "outcomes", "made"),
    [
        ("any", ["standby"], ["10.0.0.1"]),
        ("read-write", ["standby", "frozen", "primary"], ["10.0.0.1", "10.0.0.3", "10.0.0.4"]),
        ("read-only", ["primary", "frozen"], ["10.0.0.1", "10.0.0.3"]),
        ("read-only", ["primary", "standby"], ["10.0.0.1", "10.0.0.3"]),
        ("primary", ["standby", "frozen"], ["10.0.0.1", "10.0.0.3"]),
        ("primary", [REFUSED, "standby", "primary"], ["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
        ("standby", ["primary", "frozen", "standby"], ["10.0.0.1", "10.0.0.3", "10.0.0.4"]),
        ("prefer-standby", ["standby"], ["10.0.0.1"]),
        ("prefer-standby", ["primary", "standby"], ["10.0.0.1", "10.0.0.3"]),
        (
            "prefer-standby",
            ["primary", "primary", "frozen", "primary"],
            ["10.0.0.1", "10.0.0.3", "10.0.0.4", "10.0.0.1"],
        ),
        # In the second pass only those are asked again that could be reached.
        (
            "prefer-standby",
            [REFUSED, REFUSED, "primary", says("57P03"), "primary"],
            ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.3"],
        ),
    ],
)
def test_target_session_attrs(target: Target, outcomes: list[object], made: list[str]) -> None:
    """Only the next host is asked, never another address of the same one."""
    driver = Driver(parameters("a,b,c", target_session_attrs=target), *outcomes)
    driver.run()
    assert driver.made == [f"{address} no" for address in made]


def test_no_host_has_the_session_that_is_wanted() -> None:
    driver = Driver(parameters("b", target_session_attrs="primary"), "standby")
    with pytest.raises(ConnectionFailed) as caught:
        driver.run()
    assert type(caught.value) is ConnectionFailed
    assert str(caught.value) == (
        "b:5432 (10.0.0.3) is not what target_session_attrs=primary asks for: "
        "the server is a standby"
    )
    driver = Driver(parameters("b,c", target_session_attrs="standby"), "primary", "frozen")
    with pytest.raises(ConnectionFailed) as caught:
        driver.run()
    assert str(caught.value).count("the server is not a standby") == 2


def test_prefer_standby_with_nothing_to_fall_back_on() -> None:
    wanted = parameters("b,c", target_session_attrs="prefer-standby")
    driver = Driver(wanted, REFUSED, REFUSED)
    with pytest.raises(ConnectionFailed):
        driver.run()
    assert len(driver.attempts) == 2


# Load balancing


def backwards(items: list[Any]) -> None:
    items.reverse()


def test_load_balancing_shuffles_hosts_and_the_addresses_of_a_host() -> None:
    wanted = parameters("a,b", load_balance_hosts=True)
    driver = Driver(wanted, REFUSED, REFUSED, "primary", shuffle=backwards)
    driver.run()
    assert driver.made == ["10.0.0.3 no", "10.0.0.2 no", "10.0.0.1 no"]
    assert wanted.hosts == parameters("a,b").hosts


def test_without_load_balancing_the_order_is_kept() -> None:
    driver = Driver(parameters("a,b"), REFUSED, REFUSED, "primary", shuffle=backwards)
    driver.run()
    assert driver.made == PLAIN[:3]


def test_load_balancing_reaches_every_host() -> None:
    wanted = parameters("b,c", load_balance_hosts=True)
    seen = {reached(Driver(wanted, "primary")) for _ in range(200)}
    assert seen == {"10.0.0.3 no", "10.0.0.4 no"}
