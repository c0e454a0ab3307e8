"""Sizes and times as people read them."""

from __future__ import annotations

import pytest

from pgrepl.amounts import bytes_text, duration_text


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (1023, "1023 bytes"),
        (1024, "1.0 kB"),
        (16 << 20, "16.0 MB"),
        (3 << 39, "1.5 TB"),
        (1 << 63, "8.0 EB"),
        (1 << 80, "1048576.0 EB"),
    ],
)
def test_sizes(count: int, shown: str) -> None:
    assert bytes_text(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0, "0.0 s"),
        (59.94, "59.9 s"),
        (60, "1 min"),
        (61.5, "1 min 1 s"),
        (3600, "1 h"),
        (7322, "2 h 2 min"),
        (86400, "1 d"),
        (200_000, "2 d 7 h"),
    ],
)
def test_durations(seconds: float, shown: str) -> None:
    assert duration_text(seconds) == shown
