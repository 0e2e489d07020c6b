"""Run a finished run of `pretrain` or `finetune` again, and compare every figure.

Example:
    mmembed replay runs/tiny

Settings come from run.json, the number of processes and threads from environment.json. The data
must be those of then. Figures are those of evaluation.json or results.json, and the losses of
metrics.jsonl. On the same machine with the same versions all are equal to the last digit; on
another processor or version of torch they differ by rounding, which training amplifies.

Exit code 0 says that all figures are equal (or within the tolerance), 1 that some are not.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import tyro

from mmembed.commands.subprograms import run_command, torchrun
from mmembed.config import read_json
from mmembed.errors import MmembedError, UsageError
from mmembed.io.json import read_lines

PROGRAMS: Final = {  # what a finished run has written last -> the program
    "evaluation.json": "mmembed_train.pretrain",
    "results.json": "mmembed_train.finetune",
}
UNREPEATED: Final = ("seconds",)  # a time is no figure of a result
SHOWN: Final = 20


@dataclass(frozen=True)
class Replay:
    """What is run again.

    Attributes:
        run: Output folder of a finished `mmembed pretrain` or `mmembed finetune`.
        out: Folder of the second run; by default RUN-replay. The same command continues it.
        tolerance: Largest difference of a figure that counts as equal.
    """

    run: tyro.conf.Positional[Path]
    out: Path | None = None
    tolerance: float = 0.0


@dataclass(frozen=True)
class Figure:
    """One that differs.

    Attributes:
        name: file and place in it.
        before: its value in the first run; None where there is none.
        now: its value in the second.
    """

    name: str
    before: Any
    now: Any

    @property
    def size(self) -> float:
        """Of the difference; infinite where one of both is no number."""
        if not (_is_number(self.before) and _is_number(self.now)):
            return math.inf
        return float(abs(self.now - self.before))


def main(argv: Sequence[str] | None = None) -> None:
    """Run again, compare, say what differs."""
    settings = tyro.cli(Replay, prog="mmembed replay", args=argv, description=__doc__)
    run = settings.run
    out = settings.out or run.with_name(f"{run.resolve().name}-replay")
    if out.resolve() == run.resolve():
        raise UsageError(f"{out}: is the run itself; choose another --out")
    result, program = _finished(run)
    from mmembed.training.data_digest import FILE, changed_data  # torch takes seconds
    from mmembed.training.environment import read_environments

    if not (run / FILE).exists():
        raise UsageError(f"{run}: holds no {FILE}: it was made before data were recorded")
    if changed := changed_data(run, read_json(run / "run.json")):
        raise UsageError(
            f"{run}: was run on other data ({', '.join(changed)}: gone, or replaced since)"
        )
    first = read_environments(run)
    if len(first) > 1:
        print(f"{run} was started in {len(first)} environments; its last one is used")
    last = first[-1] if first else {"processes": 1, "threads": 1}
    command = [*torchrun(last["processes"], program), str(run / "run.json"), "--out", str(out)]
    run_command("run it again", command, {**os.environ, "OMP_NUM_THREADS": str(last["threads"])})

    figures, different = compare(run, out, result)
    apart = [figure for figure in different if not figure.size <= settings.tolerance]
    print("\n".join(_report(figures, different, first, read_environments(out))), flush=True)
    if apart:
        raise MmembedError(f"{len(apart)} of {figures} figures of {run} are others in {out}")


def compare(run: Path, out: Path, result: str) -> tuple[int, list[Figure]]:
    """How many figures two runs have, and those that differ, the largest difference first.

    Args:
        run: folder of the first.
        out: folder of the second.
        result: the file of their scores.
    """
    before, now = dict(_figures(run, result)), dict(_figures(out, result))
    names = list(dict.fromkeys([*before, *now]))
    every = [Figure(name, before.get(name), now.get(name)) for name in names]
    different = [figure for figure in every if figure.before != figure.now]
    return len(every), sorted(different, key=lambda figure: -figure.size)


def _finished(run: Path) -> tuple[str, str]:
    """The file of a run's scores, and its program."""
    if not (run / "run.json").is_file():
        raise UsageError(f"{run}: holds no run.json; name a folder of `pretrain` or `finetune`")
    for result, program in PROGRAMS.items():
        if (run / result).is_file():
            return result, program
    raise UsageError(
        f"{run}: holds neither {' nor '.join(PROGRAMS)}; if it was stopped, run it again first"
    )


def _figures(run: Path, result: str) -> Iterator[tuple[str, Any]]:
    """Name -> value, of all that a run has scored and logged."""
    yield from _leaves(read_json(run / result), result)
    metrics = run / "metrics.jsonl"
    if metrics.exists():
        for number, line in enumerate(read_lines(metrics), 1):
            kept = {name: value for name, value in line.items() if name not in UNREPEATED}
            yield from _leaves(kept, f"metrics.jsonl line {number}")


def _leaves(value: Any, where: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, f"{where}: {name}" if ":" not in where else f"{where}.{name}")
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _leaves(inner, f"{where}[{place}]")
    else:
        yield where, value


def _report(
    figures: int,
    different: Sequence[Figure],
    first: Sequence[Mapping[str, Any]],
    second: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    if not different:
        yield f"{figures} figures, all equal"
        return
    yield f"{len(different)} of {figures} figures differ, the largest differences first:"
    width = max(len(figure.name) for figure in different[:SHOWN])
    for figure in different[:SHOWN]:
        yield f"  {figure.name:{width}}  {_shown(figure.before)} -> {_shown(figure.now)}"
    if len(different) > SHOWN:
        yield f"  and {len(different) - SHOWN} more"
    before, now = (each[-1] if each else {} for each in (first, second))
    others = [name for name in now if before.get(name) != now[name]]
    for name in others:
        yield f"computed with another {name}: {before.get(name, 'not recorded')} -> {now[name]}"
    if not others:
        yield "computed with the same versions on the same kind of machine"


def _shown(value: Any) -> str:
    return f"{value:.6g}" if _is_number(value) else "nothing" if value is None else str(value)[:40]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
