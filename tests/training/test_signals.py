"""Signals stop a loop when it looks; none is lost, and none stays caught."""

from __future__ import annotations

import signal

import pytest

from mmembed.commands.cli import run_program
from mmembed.errors import Stopped
from mmembed.training.signals import SIGNALS, StopRequest


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in SIGNALS]


def test_a_request_is_seen_when_the_loop_looks() -> None:
    before = handlers()
    with pytest.raises(Stopped, match="saved"), StopRequest() as stop:
        assert not stop.requested
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested
        assert handlers() == [signal.SIG_DFL] * 3  # a second one ends the process
        raise Stopped("saved")
    assert handlers() == before


def test_a_request_nobody_looked_at_comes_again() -> None:
    """Ctrl-C after the last step of training."""
    before = handlers()
    with pytest.raises(KeyboardInterrupt), StopRequest():
        signal.raise_signal(signal.SIGINT)

    def program(arguments: list[str]) -> None:
        with StopRequest():
            signal.raise_signal(signal.SIGTERM)

    assert run_program(program, []) == 75
    assert handlers() == before


def test_a_loop_is_left_at_once_where_it_says_so() -> None:
    before = handlers()
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop, stop.suspended():
        assert handlers() == before
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        with stop.suspended():
            raise AssertionError("it was asked to stop")
    with StopRequest() as stop:
        with stop.suspended():
            pass
        assert handlers() == [stop._ask] * 3
    assert handlers() == before
