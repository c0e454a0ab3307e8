"""Nothing is lost, whatever happens: the session's laws against a simulated server.

Twice, since each finds what the other does not: Hypothesis draws short histories and makes the one
that fails as short as it can, to be printed as a program; seeds give long ones, in which everything
happens that can, and the number of a failing one is all that it takes to see it again.

PGREPL_LONG=1 tries some fifty times as many of both.
"""

from __future__ import annotations

import os
from functools import partial
from random import Random
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.history import ALL, History

IS_LONG = os.environ.get("PGREPL_LONG") == "1"
HISTORIES = 5_000 if IS_LONG else 150
SEEDS = range(2_000 if IS_LONG else 60)
STEPS = 300
SIZES = (1, 30, 100, 1000, 1 << 30)
POSITIONS = ("end", "end", "end", "commit", "between", "received", "wal", "far", "nothing")
TIMES = (0.0, 0.001, 0.03, 0.1, 1.0, 5.0, 9.99, 12.0, 24.0, 40.0)


@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_the_laws_hold_in_every_history(codec: ModuleType) -> None:
    machine: Any = partial(History, codec)
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=HISTORIES,
            stateful_step_count=60,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


class Simulation:
    """A history of which a seed decides what happens next."""

    def __init__(self, codec: ModuleType, seed: int) -> None:
        self._draw = Random(seed)
        self._history = History(codec)
        self._history.make(monotonic=self._chance(0.7))
        self._calm = self._draw.choice((0.5, 0.8, 0.97))  # how seldom anything rare happens

    def _chance(self, probability: float) -> bool:
        return self._draw.random() < probability

    def step(self) -> None:
        """One thing happens, and the laws hold."""
        actions = (self._write, self._serve, self._carry, self._read, self._read, self._acknowledge)
        self._draw.choice((*actions, self._pass_time, self._something_rare))()
        self._history.delivers_all_in_order_and_nothing_else()

    def end(self) -> None:
        self._history.teardown()

    def _write(self) -> None:
        draw, history = self._draw, self._history
        for _ in range(draw.choice((1, 2, 8))):
            index = draw.randrange(8)
            if history.server.wal.open and self._chance(0.5):
                actions = ("insert", "insert", "commit", "from elsewhere", "abort", "2pc")
                history.go_on(index, draw.choice(actions))
            elif history.server.wal.prepared and self._chance(0.3):
                history.finish_prepared(index, self._chance(0.7))
            elif self._chance(0.6):
                history.begin(draw.randrange(4), self._chance(0.5))
            else:
                history.write(draw.randrange(600), self._chance(0.3))

    def _serve(self) -> None:
        history = self._history
        history.decode(self._draw.choice((1, 2, 5, 100)))
        if self._chance(0.4):
            history.keepalive(self._draw.choice((0, 0, 0, 1, 5)), self._chance(0.3))

    def _carry(self) -> None:
        size = self._draw.choice(SIZES)
        if self._chance(0.5):
            self._history.carry_to_client(size, self._draw.randrange(100))
        else:
            self._history.carry_to_server(size)

    def _read(self) -> None:
        limit = self._draw.choice((1, 2, 5, 1000))
        self._history.read(limit, self._chance(0.5), self._chance(0.3))

    def _acknowledge(self) -> None:
        draw, history = self._draw, self._history
        moved = ALL if self._chance(0.7) else (self._chance(0.5), self._chance(0.5), True)
        if history.client.open is not None and self._chance(0.2):
            history.acknowledge_before_the_end(moved)
        else:
            position = draw.choice(POSITIONS)
            history.acknowledge(draw.choice((0, 0, 1, 3)), position, moved, draw.randint(-80, 80))

    def _pass_time(self) -> None:
        self._history.advance(self._draw.choice(TIMES), self._chance(0.8))

    def _something_rare(self) -> None:
        if not self._chance(self._calm):
            rare = ("checkpoint", "idle", "disconnect", "crash", "stop", "stop", "shutdown")
            tokens = ("token", "token acknowledged", "token acknowledged")
            what = self._draw.choice(tokens if self._chance(0.1) else rare)
            self._history.something_rare(what, self._chance(0.5))


@pytest.mark.timeout(3600)  # with PGREPL_LONG=1
def test_the_laws_hold_for_every_seed(codec: ModuleType) -> None:
    for seed in SEEDS:
        simulation = Simulation(codec, seed)
        try:
            for _ in range(STEPS):
                simulation.step()
            simulation.end()
        except Exception as error:
            error.add_note(f"in the history of seed {seed}")
            raise
