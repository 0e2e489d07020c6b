"""A pretrained encoder as a front end: what is trained, what is seen, what is saved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from helpers.tiny_backbones import write_tiny
from torch import nn

from mmembed.backbones.lora import LoraLinear, add_lora, merge_lora
from mmembed.backbones.pretrained import load_pretrained
from mmembed.backbones.pretrained_frontend import PretrainedFrontend
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Packed
from mmembed.errors import UsageError
from mmembed.settings.encoder import BackboneConfig

KINDS = {"whisper": "audio", "wav2vec2": "audio", "wavlm": "audio", "vit": "video", "bert": "text"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    return {kind: write_tiny(folder / kind, kind) for kind in KINDS}


def frontend(
    folder: Path, tuned: str = "nothing", top: int = 1, width: int = 6
) -> PretrainedFrontend:
    torch.manual_seed(0)
    config = BackboneConfig(str(folder), tuned=tuned, top=top, lora_rank=2)  # type: ignore[arg-type]
    return PretrainedFrontend(load_pretrained(str(folder)).encoder, config, width)


def inputs(stream: str) -> Packed:
    draw = torch.Generator().manual_seed(0)
    if stream == "audio":
        return Packed(
            0.1 * torch.randn(6_400 + 1_000, generator=draw), torch.tensor([6_400, 1_000])
        )
    if stream == "video":
        return Packed(
            torch.randint(0, 255, (5, 40, 40), generator=draw).byte(), torch.tensor([3, 2])
        )
    return Packed(torch.randint(5, 70, (7,), generator=draw), torch.tensor([4, 3]))


@pytest.mark.parametrize(("kind", "stream"), KINDS.items())
def test_frames_are_the_weighted_sum_of_the_normalised_layers(
    folders: dict[str, Path], kind: str, stream: str
) -> None:
    made, given = frontend(folders[kind]).eval(), inputs(stream)
    with torch.no_grad():
        made.layers.logits.copy_(torch.arange(len(made.layers.logits)).float())
        layers, frames = made(given)
    weights = torch.arange(len(layers)).float().softmax(0)
    expected = made.project(
        sum(
            w * F.layer_norm(x.values, x.values.shape[1:])
            for w, x in zip(weights, layers, strict=True)
        )
    )
    if stream == "audio":  # 62.5 ms are 4 steps of Whisper, and 2 of those that pad nothing
        assert frames.lengths.tolist() == [10, 2 if kind == "whisper" else 1]
        torch.testing.assert_close(frames.values[0], expected[:2].mean(0))
    else:
        assert torch.equal(frames.lengths, given.lengths)
        torch.testing.assert_close(frames.values, expected)


@pytest.mark.parametrize("tuned", ["nothing", "top", "lora", "all"])
def test_gradients_reach_what_is_trained_and_nothing_else(
    folders: dict[str, Path], tuned: str
) -> None:
    made = frontend(folders["whisper"], tuned)
    made.train()
    _, frames = made(inputs("audio"))
    frames.values.square().sum().backward()
    reached = {name for name, p in made.backbone.named_parameters() if p.grad is not None}
    blocks = {name for name in reached if ".layers.1." in name}
    if tuned == "nothing":
        assert not reached and not made.backbone.training
    elif tuned == "top":
        assert reached == blocks and any("fc1" in name for name in reached)
    elif tuned == "lora":
        ends = {name.rsplit(".", 1)[1] for name in reached}
        assert ends == {"down", "up"} and len(reached) == 2 * 2 * 2
    else:
        assert any("conv1" in name for name in reached)
    assert made.project.weight.grad is not None and made.layers.logits.grad is not None


def test_more_blocks_than_there_are_cannot_be_trained(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match=r"has 2 blocks, 3 cannot be trained"):
        frontend(folders["whisper"], "top", top=3)


@pytest.mark.parametrize(("kind", "stream"), KINDS.items())
def test_lora_begins_as_the_encoder_itself_and_merges_into_its_weights(
    folders: dict[str, Path], kind: str, stream: str
) -> None:
    def layers(encoder: StreamEncoder) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([layer.values for layer in encoder(inputs(stream))])

    encoder = load_pretrained(str(folders[kind])).encoder
    names, before = list(encoder.state_dict()), layers(encoder)
    add_lora(encoder.blocks, 2)
    assert torch.equal(layers(encoder), before)
    for part in encoder.modules():
        if isinstance(part, LoraLinear):
            nn.init.normal_(part.up, generator=torch.Generator().manual_seed(1))
    changed = layers(encoder)
    assert not torch.allclose(changed, before, atol=1e-3)
    merge_lora(encoder)
    assert list(encoder.state_dict()) == names
    torch.testing.assert_close(layers(encoder), changed, rtol=1e-4, atol=1e-4)


def test_lora_needs_queries_and_values() -> None:
    with pytest.raises(UsageError, match="no queries and values"):
        add_lora(nn.ModuleList([nn.Linear(2, 2)]), 2)


def test_steps_that_fit_no_frame_are_refused(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = load_pretrained(str(folders["whisper"])).encoder
    monkeypatch.setattr(type(encoder), "rate", property(lambda _: 40.0))
    config = replace(BackboneConfig(), name="odd")
    with pytest.raises(UsageError, match="odd: has 40 steps a second, not 25 or 50"):
        PretrainedFrontend(encoder, config, 4)
