"""Pre-training on top of pretrained encoders, as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from helpers.forker import Forker
from helpers.pretraining import (
    PROGRAM,
    clip,
    end_after_three_steps,
    result_of,
    settings,
    write_clips,
)
from helpers.tiny_backbones import write_tiny
from mmembed_export.extract import main as extract

from mmembed.data.dataset import Examples
from mmembed.embedder import Embedder

pytestmark = pytest.mark.slow

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
KINDS = {"audio": "whisper", "video": "vit", "text": "bert"}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixteen clips of four speakers; some lack a stream."""
    lacking = {3: ("audio",), 5: ("video", "text"), 7: ("text",)}
    clips = [
        clip(number, 60 + 5 * number, streams=lacking.get(number, ("audio", "video", "text")))
        for number in range(16)
    ]
    return write_clips(tmp_path_factory.mktemp("corpus"), clips)


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {stream: write_tiny(folder / kind, kind) for stream, kind in KINDS.items()}


def arguments(
    shards: Path, out: Path, backbones: dict[str, Path], tuned: str, *more: str
) -> list[str]:
    named = [f"--method.encoder.{s}.name={folder}" for s, folder in backbones.items()]
    tuning = [f"--method.encoder.{s}.tuned={tuned}" for s in backbones]
    few = ["--method.encoder.audio.lora-rank=2"]
    return [*settings(shards, out), *named, *tuning, *few, "--optim.backbone-lr=1e-3", *more]


@pytest.fixture(scope="module")
def pretrain() -> Iterator[Forker]:
    made = Forker(PROGRAM, "mmembed.pretraining.pretrain")
    yield made
    made.close()


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, check=False, timeout=180
    )


def make_steps(shards: Path, encoder: Path, out: Path) -> None:
    """As a user extracts the layers of a frozen encoder; two clips have no sound."""
    words = ["--encoder", str(encoder), "--granularity", "steps", "--error-budget", "1"]
    extract([str(shards), *words, "--out", str(out)])


@pytest.fixture(scope="module")
def undisturbed(
    pretrain: Forker,
    shards: Path,
    backbones: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A finished run of two processes, its pretrained encoders tuned by LoRA."""
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    answers = pretrain(arguments(shards, out, backbones, "lora"), ranks=2, cwd="/")
    assert [code for code, _ in answers] == [0, 0], answers
    return out


def test_it_learns_and_its_folder_is_complete(
    undisturbed: Path, shards: Path, backbones: dict[str, Path], tmp_path: Path
) -> None:
    _, _, lines = result_of(undisturbed)
    assert lines[-1]["loss"] < lines[0]["loss"]
    before = Embedder.from_pretrained(undisturbed / "untrained")
    after = Embedder.from_pretrained(undisturbed / "encoder")
    assert after.recogniser is not None
    names = after.encoder.layer_names
    assert {"audio backbone 2", "video backbone 3", "text backbone 3", "fused"} <= set(names)
    clips = list(Examples([shards]))[:8]
    layers = {name: e.encode(clips).layers for name, e in (("before", before), ("after", after))}
    tuned = names.index("audio backbone 2")
    assert not torch.allclose(layers["before"][:, tuned], layers["after"][:, tuned], atol=1e-4)
    alone = torch.cat([after.encode([one]).layers for one in clips])
    torch.testing.assert_close(layers["after"], alone, rtol=1e-4, atol=1e-5)
    after.save_pretrained(tmp_path / "again")
    assert Embedder.from_pretrained(tmp_path / "again").sha256 == after.sha256


@pytest.mark.long
def test_stopped_and_resumed_equals_undisturbed(
    shards: Path, backbones: dict[str, Path], undisturbed: Path, tmp_path: Path
) -> None:
    """Bitwise; and checkpoints do not hold what is frozen."""
    out = tmp_path / "run"
    command = [*TORCHRUN, str(PROGRAM), *arguments(shards, out, backbones, "lora")]
    end_after_three_steps(command, out, signal.SIGKILL)
    done = run(command)
    assert done.returncode == 0, done.stderr
    assert result_of(out) == result_of(undisturbed)


def test_another_encoder_under_the_same_name_is_refused(
    pretrain: Forker, shards: Path, backbones: dict[str, Path], undisturbed: Path, tmp_path: Path
) -> None:
    other = {**backbones, "audio": write_tiny(tmp_path / "other", "whisper", encoder_layers=1)}
    ((code, said),) = pretrain(arguments(shards, undisturbed, other, "lora"), cwd="/")
    assert code == 2 and "method.encoder.audio.sha256" in said


@pytest.mark.long
def test_a_folder_may_name_its_base(
    pretrain: Forker, shards: Path, backbones: dict[str, Path], tmp_path: Path
) -> None:
    """Frozen, in one process: the same vectors, from a folder without the base's weights."""
    found = {}
    for name in ("self-contained", "no-self-contained"):
        out = tmp_path / name
        more = ["--loop.epochs=1", f"--{name}"]
        ((code, said),) = pretrain(arguments(shards, out, backbones, "nothing", *more), cwd="/")
        assert code == 0, said
        found[name] = Embedder.from_pretrained(out / "encoder").encode(list(Examples([shards]))[:4])
    whole, naming = (tmp_path / name / "encoder" for name in found)
    assert torch.equal(*(one.layers for one in found.values()))
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (whole, naming)]
    assert sizes[1] < sizes[0]
    config = json.loads((naming / "config.json").read_text())
    assert config["bases"]["audio"]["name"] == str(backbones["audio"])


@pytest.mark.parametrize("kind", ["whisper", pytest.param("wav2vec2", marks=pytest.mark.long)])
def test_layers_computed_once_train_as_those_computed_each_time(
    pretrain: Forker, shards: Path, tmp_path: Path, kind: str
) -> None:
    """Also of wav2vec 2.0, whose steps end before the sound does."""
    audio = write_tiny(tmp_path / kind, kind)
    stored = tmp_path / "steps"
    make_steps(shards, audio, stored)
    losses = []
    for name, more in (("computed", ()), ("stored", (f"--data.audio-layers={stored}",))):
        out = tmp_path / name
        call = arguments(shards, out, {"audio": audio}, "nothing", *more)
        still = ["--data.augmentation.no-audio", "--data.augmentation.gain=0"]
        streams = ["--data.streams", "audio", "--method.masked-text-weight=0"]
        ((code, said),) = pretrain([*call, *still, *streams], cwd="/")
        assert code == 0, said
        losses.append([line["loss"] for line in result_of(out)[2] if "loss" in line])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_layers_of_another_encoder_are_refused(
    pretrain: Forker, shards: Path, backbones: dict[str, Path], tmp_path: Path
) -> None:
    audio = {"audio": backbones["audio"]}
    other = write_tiny(tmp_path / "other", "whisper", encoder_layers=1)
    stored = tmp_path / "steps"
    make_steps(shards, other, stored)
    for tuned, words in (("nothing", "the audio encoder of this run is"), ("lora", "is lora")):
        more = [f"--data.audio-layers={stored}"]
        call = arguments(shards, tmp_path / "run", audio, tuned, *more)
        ((code, said),) = pretrain(call, cwd="/")
        assert code == 2 and words in said.splitlines()[-1]
