"""What a stream asks pgoutput for, and which server it can ask."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pgrepl.errors import UsageError
from pgrepl.session.options import StreamOptions

MAJORS = range(10, 19)
LAST_MINOR = 23


def server(major: int) -> int:
    """A version as PostgreSQL counts it."""
    return major * 10000 + LAST_MINOR


# What is asked for: since which server, at least which protocol, the options that are sent.
WANTED: list[tuple[dict[str, Any], int, int, dict[str, str]]] = [
    ({}, 10, 1, {}),
    ({"streaming": "off"}, 10, 1, {}),
    ({"origin": "any"}, 10, 1, {}),
    ({"binary": False, "messages": False, "two_phase": False}, 10, 1, {}),
    ({"binary": True}, 14, 1, {"binary": "on"}),
    ({"messages": True}, 14, 1, {"messages": "on"}),
    ({"streaming": "on"}, 14, 2, {"streaming": "on"}),
    ({"two_phase": True}, 15, 3, {"two_phase": "on"}),
    ({"streaming": "parallel"}, 16, 4, {"streaming": "parallel"}),
    ({"origin": "none"}, 16, 1, {"origin": "none"}),
    ({"proto_version": 1}, 10, 1, {}),
    ({"proto_version": 2}, 14, 2, {}),
    ({"proto_version": 3}, 15, 3, {}),
    ({"proto_version": 4}, 16, 4, {}),
    ({"streaming": "on", "two_phase": True}, 15, 3, {"streaming": "on", "two_phase": "on"}),
    ({"streaming": "on", "proto_version": 4}, 16, 4, {"streaming": "on"}),
]


def naming(wanted: dict[str, Any]) -> str:
    """A pattern for any of these options, as a message names them."""
    return "|".join(re.escape(f"{name}={value!r}") for name, value in wanted.items())


@pytest.mark.parametrize(
    ("wanted", "since", "version", "sent"), WANTED, ids=lambda value: str(value)
)
def test_every_option_on_every_server(
    wanted: dict[str, Any], since: int, version: int, sent: dict[str, str]
) -> None:
    options = StreamOptions.of(["p"], **wanted)
    assert options.version == version
    expected = {"proto_version": str(version), "publication_names": '"p"', **sent}
    for major in MAJORS:
        if major >= since:
            assert options.plugin_options(server(major)) == expected, major
            continue
        with pytest.raises(UsageError) as caught:
            options.plugin_options(server(major))
        # Of several options, the first that this server is too old for.
        assert re.fullmatch(
            rf"({naming(wanted)}) needs PostgreSQL (\d+) or later, "
            rf"the server is PostgreSQL {major}",
            str(caught.value),
        )


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"streaming": "on"}, "streaming='on' needs PostgreSQL 14"),
        ({"streaming": "parallel"}, "streaming='parallel' needs PostgreSQL 16"),
        ({"two_phase": True}, "two_phase=True needs PostgreSQL 15"),
        ({"two_phase": True, "proto_version": 4}, "two_phase=True needs PostgreSQL 15"),
        ({"proto_version": 3}, "proto_version=3 needs PostgreSQL 15"),
        ({"binary": True}, "binary=True needs PostgreSQL 14"),
        ({"messages": True}, "messages=True needs PostgreSQL 14"),
        ({"origin": "none"}, "origin='none' needs PostgreSQL 16"),
    ],
)
def test_a_message_names_what_was_asked_for_and_the_version_that_has_it(
    wanted: dict[str, Any], expected: str
) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(expected)} or later, the server is"):
        StreamOptions.of(["p"], **wanted).plugin_options(server(13))


def test_options_go_together() -> None:
    options = StreamOptions.of(
        ("p", "q"),
        streaming="parallel",
        two_phase=True,
        binary=True,
        messages=True,
        origin="none",
    )
    assert options.plugin_options(server(18)) == {
        "proto_version": "4",
        "publication_names": '"p","q"',
        "streaming": "parallel",
        "two_phase": "on",
        "binary": "on",
        "messages": "on",
        "origin": "none",
    }


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["p"], '"p"'),
        (["p", "q"], '"p","q"'),
        (("Mixed Case",), '"Mixed Case"'),
        (['say "hi"'], '"say ""hi"""'),
        (["a,b", "c"], '"a,b","c"'),
        (["o'clock"], '"o\'clock"'),
        (["blåbær"], '"blåbær"'),
        ((name for name in "pq"), '"p","q"'),
    ],
)
def test_publications_are_quoted_one_by_one(names: Any, expected: str) -> None:
    sent = StreamOptions.of(names).plugin_options(server(10))
    assert sent["publication_names"] == expected


@pytest.mark.parametrize("names", [[], ["p", ""], [""]])
def test_publications_without_a_name(names: list[str]) -> None:
    with pytest.raises(UsageError, match="one publication name or more, none of them empty"):
        StreamOptions.of(names)


@pytest.mark.parametrize("name", [None, 7, b"p"])
def test_publications_that_are_no_text(name: Any) -> None:
    expected = f"expected publication names as text, got {type(name).__name__}"
    with pytest.raises(UsageError, match=expected):
        StreamOptions.of(["p", name])


def test_a_text_is_no_list_of_publications() -> None:
    with pytest.raises(UsageError, match=r"several publication names, got the text 'p'.*\['p'\]"):
        StreamOptions.of("p")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"streaming": "yes"}, "expected streaming 'off', 'on' or 'parallel', got 'yes'"),
        ({"streaming": True}, "expected streaming 'off', 'on' or 'parallel', got True"),
        ({"streaming": None}, "expected streaming 'off', 'on' or 'parallel', got None"),
        ({"streaming": ["on"]}, "expected streaming 'off', 'on' or 'parallel', got ['on']"),
        ({"origin": "local"}, "expected origin 'any' or 'none', got 'local'"),
        ({"origin": None}, "expected origin 'any' or 'none', got None"),
        ({"proto_version": 0}, "expected a pgoutput protocol version from 1 to 4, got 0"),
        ({"proto_version": 5}, "expected a pgoutput protocol version from 1 to 4, got 5"),
        ({"proto_version": "2"}, "expected a pgoutput protocol version from 1 to 4, got '2'"),
        ({"proto_version": 2.0}, "expected a pgoutput protocol version from 1 to 4, got 2.0"),
        ({"proto_version": True}, "expected a pgoutput protocol version from 1 to 4, got True"),
        ({"binary": "off"}, "expected binary True or False, got 'off'"),
        ({"messages": 0}, "expected messages True or False, got 0"),
        ({"two_phase": None}, "expected two_phase True or False, got None"),
    ],
)
def test_what_makes_no_sense(wanted: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError, match=f"^{re.escape(expected)}$"):
        StreamOptions.of(["p"], **wanted)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("wanted", "needed"),
    [({"streaming": "on"}, 2), ({"streaming": "parallel"}, 4), ({"two_phase": True}, 3)],
    ids=str,
)
def test_a_protocol_version_that_contradicts(
    wanted: dict[str, Any], needed: int, version: int
) -> None:
    if version >= needed:
        assert StreamOptions.of(["p"], proto_version=version, **wanted).version == version
    else:
        (name, value), *_ = wanted.items()
        expected = f"{name}={value!r} needs proto_version {needed} or later, got {version}; leave"
        with pytest.raises(UsageError, match=f"^{re.escape(expected)}"):
            StreamOptions.of(["p"], proto_version=version, **wanted)


def test_an_option_that_there_is_not() -> None:
    with pytest.raises(TypeError, match="snapshot"):
        StreamOptions.of(["p"], snapshot="export")
