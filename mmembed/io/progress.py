"""Progress of long work on stderr: a bar on a terminal, else a plain line now and then."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

LINE_EVERY: Final = 10.0  # seconds between plain lines
DRAW_EVERY: Final = 0.2  # seconds between redraws of the bar


@contextmanager
def progress(
    label: str, total: int, *, start: int = 0, show: bool = True
) -> Iterator[Callable[..., None]]:
    """Show how far a loop is, how long it took and how long it will take.

    Args:
        label: what is done, a word or two.
        total: how many there are.
        start: how many an earlier run had done; the estimate leaves them out.
        show: False shows nothing, for all processes but the first.

    Yields:
        The function to call with the number done so far, fractions welcome, and with figures to
        show beside it, such as `loss=1.23`.
    """
    if not show:
        yield lambda done, /, **figures: None
        return
    console = Console(stderr=True)
    # No refresh thread: callers fork workers, and a lock held by a thread would stay held in them.
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=console,
        auto_refresh=False,
        disable=not console.is_terminal,
    )
    task = bar.add_task(label, total=total, completed=start, status="")
    began = drawn = time.monotonic()
    done, shown, latest = float(start), "", dict[str, float]()

    def draw() -> None:
        nonlocal shown, drawn
        drawn = time.monotonic()
        status = describe(done, total, latest, seconds=drawn - began, start=start)
        if console.is_terminal:
            bar.update(task, completed=done, status=status, refresh=True)
        elif status != shown:
            print(f"{label} {status}", file=sys.stderr, flush=True)
        shown = status

    def update(now_done: float, /, **figures: float) -> None:
        nonlocal done, latest
        done, latest = now_done, figures or latest
        if time.monotonic() - drawn >= (DRAW_EVERY if console.is_terminal else LINE_EVERY):
            draw()

    with bar:
        try:
            yield update
        finally:
            draw()


def describe(
    done: float, total: int, figures: dict[str, float], *, seconds: float, start: float = 0
) -> str:
    """One status line, such as "30/120  loss=1.23  1:05 so far, 3:15 to go".

    Args:
        done: of `total`.
        total: how many there are.
        figures: name -> value.
        seconds: since the work began.
        start: how many were done before it began.
    """
    count = f"{done:.0f}" if float(done).is_integer() else f"{done:.1f}"
    parts = [f"{count}/{total}", *(f"{name}={value:.4g}" for name, value in figures.items())]
    clock = f"{duration(seconds)} so far"
    if start < done < total:
        clock += f", {duration(seconds * (total - done) / (done - start))} to go"
    return "  ".join([*parts, clock])


def duration(seconds: float) -> str:
    """Minutes and seconds, such as "3:07", or hours too, "1:03:07"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
