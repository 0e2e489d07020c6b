"""Checkpoints: new folders that appear whole or not at all.

checkpoints/step-00001200/
    method.safetensors   weights and buffers
    trainer.pt           optimiser state and position; tensors and builtins only
    checksums.json       SHA-256 of the two, written last
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from mmembed.data.atomic import sync_folder

log = logging.getLogger(__name__)

KEPT = 2  # checkpoints; the older one serves when the newer is damaged


@dataclass(frozen=True)
class Position:
    """Where training stands: `step` of `epoch` comes next; `total` steps were taken."""

    epoch: int = 0
    step: int = 0
    total: int = 0


def save_checkpoint(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, position: Position
) -> Path:
    """Write `folder/step-N`, remove all but the newest two."""
    final = folder / f"step-{position.total:08d}"
    if final.exists():
        return final
    temporary = folder / f".{final.name}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    save_file(
        {k: v.contiguous().cpu() for k, v in method.state_dict().items()},
        temporary / "method.safetensors",
    )
    torch.save(
        {"optimizer": optimizer.state_dict(), "position": vars(position)}, temporary / "trainer.pt"
    )
    sums = {name: _sha256(temporary / name) for name in ("method.safetensors", "trainer.pt")}
    (temporary / "checksums.json").write_text(json.dumps(sums))
    for path in temporary.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    temporary.rename(final)
    sync_folder(folder)
    for old in _checkpoints(folder)[:-KEPT]:
        shutil.rmtree(old)
    return final


def load_latest(
    folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer
) -> Position | None:
    """Restore the newest whole checkpoint; a damaged one is named and passed over.

    Returns:
        The position to go on from, or None when there is no checkpoint to use.
    """
    for path in reversed(_checkpoints(folder)):
        try:
            sums = json.loads((path / "checksums.json").read_text())
            damaged = [name for name, digest in sums.items() if _sha256(path / name) != digest]
        except (OSError, ValueError) as error:
            damaged = [str(error)]
        if damaged:
            log.warning("%s is damaged (%s); trying the one before", path, ", ".join(damaged))
            continue
        state: dict[str, Any] = torch.load(path / "trainer.pt", weights_only=True)
        method.load_state_dict(load_file(path / "method.safetensors"))
        optimizer.load_state_dict(state["optimizer"])
        return Position(**state["position"])
    return None


def _checkpoints(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
