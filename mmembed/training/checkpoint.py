"""Checkpoints: new folders that appear whole or not at all.

checkpoints/step-00001200/
    method.safetensors   weights that are trained, and buffers
    trainer.pt           optimiser state, position, the machine; tensors and builtins only
    checksums.json       SHA-256 of the two
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import itertools
import json
import logging
import os
import secrets
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from mmembed.errors import CorruptError, MmembedError
from mmembed.io.atomic import errors_of, sync_folder
from mmembed.io.json import dumps
from mmembed.training.distributed import ALONE, World
from mmembed.training.shard import gathered

log = logging.getLogger(__name__)

KEPT = 2  # whole checkpoints; the older one serves when the newer is damaged
WEIGHTS: Final = "method.safetensors"
TRAINER: Final = "trainer.pt"
CHECKSUMS: Final = "checksums.json"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Position:
    """Where training stands: `step` of `epoch` comes next; `total` steps were taken, of which the
    last `skipped` changed nothing, because something was not finite.
    """

    epoch: int = 0
    step: int = 0
    total: int = 0
    skipped: int = 0


class TrainingState(NamedTuple):
    """What a checkpoint holds beside the position.

    Attributes:
        weights: those that are trained, and buffers.
        optimizer: its `state_dict`.
    """

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]

    @classmethod
    def of(cls, method: nn.Module, optimizer: torch.optim.Optimizer) -> TrainingState:
        """Of training as it stands; all processes together where each has a part of it."""
        frozen = _frozen(method)
        weights = {name: x for name, x in method.state_dict().items() if name not in frozen}
        return cls(gathered(weights), gathered(optimizer.state_dict()))


def save_checkpoint(
    folder: Path, state: TrainingState, position: Position, world: World = ALONE
) -> Path:
    """Write `folder/step-N`, in the place of a damaged one; keep the newest two that are whole.

    The bytes are made first and written by this process: an error of the disk is an OSError that
    names the file. For one program at a time.
    """
    final = folder / f"step-{position.total:08d}"
    if final.exists() and _is_whole(final):
        return final
    trainer = io.BytesIO()
    told = {"position": vars(position), "machine": _machine(world)}
    torch.save({"optimizer": state.optimizer, **told}, trainer)
    weights = {name: value.contiguous().cpu() for name, value in state.weights.items()}
    files = {WEIGHTS: save(weights), TRAINER: trainer.getvalue()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
    files[CHECKSUMS] = dumps(sums).encode()

    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    temporary = folder / f".{final.name}.{secrets.token_hex(4)}.tmp"
    damaged = temporary.with_suffix(".damaged.tmp")
    temporary.mkdir()
    try:
        with (temporary / CHECKSUMS).open("xb") as lock:  # held until the folder has its name
            fcntl.flock(lock, fcntl.LOCK_EX)
            for name, data in files.items():
                with errors_of(temporary / name), (temporary / name).open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
            sync_folder(temporary)
            if final.exists():
                final.rename(damaged)
            temporary.rename(final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(damaged, ignore_errors=True)
    sync_folder(folder)
    _remove_others(folder, final)
    return final


def load_latest(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, world: World = ALONE
) -> Position | None:
    """Restore the newest whole checkpoint; a damaged one is logged and skipped.

    The main process chooses and reads it; all processes restore the same bytes. Leftovers of killed
    saves are removed. For one program at a time.

    Returns:
        The position to go on from, or None when there is no checkpoint to use.

    Raises:
        CorruptError: it is whole, and not of this method or not of this optimiser.
    """
    chosen = world.broadcast(_newest(folder) if world.is_main else None)
    if chosen is None:
        return None
    path, files = chosen
    try:
        trainer = io.BytesIO(files[TRAINER])
        state: dict[str, Any] = torch.load(trainer, map_location="cpu", weights_only=True)
        missing, unexpected = method.load_state_dict(load(files[WEIGHTS]), strict=False)
        if unexpected or {*missing} != _frozen(method):
            raise ValueError(f"weights {[*missing, *unexpected][:3]} are not those of the method")
        optimizer.load_state_dict(state["optimizer"])
        for parameter, slots in optimizer.state.items():
            if any(value.ndim and value.shape != parameter.shape for value in slots.values()):
                raise ValueError("the optimiser's state has other shapes than the weights")
            for name, value in slots.items():
                if value.ndim:  # fused AdamW takes for granted that both lie in memory alike
                    slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        position = Position(**state["position"])
        machine = dict(state.get("machine", {}))  # missing in older ones
    except MmembedError:  # a signal
        raise
    except Exception as error:  # what loaders raise on other bytes than their own is not declared
        what = " ".join(str(error).split())[:150]
        raise CorruptError(
            f"{path}: is whole and does not fit this run ({type(error).__name__}: {what}); remove "
            "it to go on from the one before, or choose another --out"
        ) from None
    if world.is_main:
        _compare(path, machine, _machine(world))
    return position


def sweep(folder: Path) -> None:
    """Remove what killed saves left behind; what a living process writes is locked."""
    for path in folder.glob(".step-*.tmp"):
        try:
            with (path / CHECKSUMS).open("r+b") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except FileNotFoundError:
            pass  # killed before it was made
        except OSError:
            continue  # locked, or not ours
        shutil.rmtree(path, ignore_errors=True)


def _newest(folder: Path) -> tuple[Path, Files] | None:
    """The newest whole checkpoint and its files."""
    if not folder.is_dir():
        return None
    sweep(folder)
    paths = _newest_first(folder)
    for path in paths:
        try:
            return path, _read(path)
        except (OSError, ValueError) as error:
            log.warning("%s is damaged (%s); trying the one before", path, error)
    if paths:
        log.warning("%s holds no whole checkpoint: training starts from the beginning", folder)
    return None


def _read(path: Path) -> Files:
    """The files of a checkpoint.

    Raises:
        OSError: one cannot be read.
        ValueError: one is not as it was written.
    """
    try:
        sums = dict(json.loads((path / CHECKSUMS).read_bytes()))
    except (ValueError, TypeError, RecursionError):
        raise ValueError(f"{CHECKSUMS} is not as it was written") from None
    files = {name: (path / name).read_bytes() for name in (WEIGHTS, TRAINER)}
    for name, data in files.items():
        if hashlib.sha256(data).hexdigest() != sums.get(name):
            raise ValueError(f"{name} has another checksum")
    return files


def _is_whole(path: Path) -> bool:
    with suppress(OSError, ValueError):
        return bool(_read(path))
    return False


def _remove_others(folder: Path, written: Path) -> None:
    """Keep the checkpoint just written and the newest whole ones of the others."""
    others = [path for path in _newest_first(folder) if path != written]
    kept = list(itertools.islice(filter(_is_whole, others), KEPT - 1))
    for path in set(others) - set(kept):
        shutil.rmtree(path, ignore_errors=True)


def _newest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*"), reverse=True)


def _frozen(method: nn.Module) -> set[str]:
    """Names of weights that training does not change: they are those of a pretrained encoder, which
    the run names by its SHA-256.
    """
    return {name for name, value in method.named_parameters() if not value.requires_grad}


def _machine(world: World) -> dict[str, str | int]:
    """All that decides how sums are rounded, beside the run's settings."""
    device = world.device
    gpu = device.type == "cuda"
    return {
        "processes": world.size,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if gpu else device.type,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": str(torch.__version__),
    }


def _compare(path: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say when what follows will not be, bit for bit, what would have followed there."""
    changed = [
        f"{name} {then[name]} -> {value}"
        for name, value in now.items()
        if name in then and then[name] != value
    ]
    if changed:
        log.warning(
            "%s was written under other circumstances (%s): training goes on from it, in the same "
            "order, but sums are rounded differently, so that its end is not bit for bit the same",
            path,
            ", ".join(changed),
        )
