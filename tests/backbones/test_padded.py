"""Pretrained encoders on padded clips: what the packed form gives, whatever is in the padding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from helpers.tiny_backbones import PICTURE, SPEECH, TEXT, write_tiny
from torch import Tensor

from mmembed.backbones.pretrained import load_pretrained
from mmembed.backbones.stream import StreamEncoder
from mmembed.backbones.whisper import WhisperStream
from mmembed.batch import Packed, Padded
from mmembed.errors import UsageError

pytest.importorskip("transformers")
EXPORTED = ("whisper", *PICTURE, *TEXT)


def tiny(folder: Path, kind: str, **changed: object) -> StreamEncoder:
    return load_pretrained(str(write_tiny(folder / kind, kind, **changed))).encoder


def clips(encoder: StreamEncoder) -> Packed:
    """Of the lengths at which whole steps end, of others, and of one step."""
    draw = torch.Generator().manual_seed(0)

    def one(length: int) -> Tensor:
        if encoder.stream == "audio":
            return 0.1 * torch.randn(length, generator=draw)
        if encoder.stream == "video":
            shape = (length, *encoder.padded_form.shape)
            return torch.randint(256, shape, generator=draw).byte()
        return torch.randint(5, 80, (length,), generator=draw)

    lengths = {"audio": (6_400, 1, 8_011, 161, 320), "video": (3, 1, 5), "text": (21, 1, 9)}
    return Packed.concatenate([one(length) for length in lengths[encoder.stream]])


@torch.no_grad()
@pytest.mark.parametrize("kind", EXPORTED)
def test_layers_equal_those_of_packed_clips(kind: str, tmp_path: Path) -> None:
    encoder = tiny(tmp_path, kind)
    packed = clips(encoder)
    given, form = encoder.to_padded(packed), encoder.padded_form
    assert given.values.shape[2:] == form.shape
    assert str(given.values.dtype) == f"torch.{form.dtype}"
    assert torch.equal(given.lengths, -(-packed.lengths // form.hop))
    junk = float("nan") if given.values.is_floating_point() else 7
    more = given.values.new_full((len(given), 3, *form.shape), junk)
    values = torch.cat((given.values, more), 1)
    padding = ~Padded(values, given.lengths).mask
    values[padding] = junk
    expected = encoder(packed)
    found = encoder.padded(Padded(values, given.lengths).zeroed())
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert torch.equal(left.lengths, right.lengths)
        torch.testing.assert_close(left.pack().values, right.values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", sorted(set(SPEECH) - {"whisper"}))
def test_what_padding_would_change_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    encoder = tiny(tmp_path, kind)
    with pytest.raises(UsageError, match=f"^{kind}: cannot be exported"):
        _ = encoder.padded_form


def test_whisper_with_silence_behind_clips_is_refused(tmp_path: Path) -> None:
    encoder = tiny(tmp_path, "whisper")
    assert isinstance(encoder, WhisperStream)
    encoder.pad_to = 30
    with pytest.raises(UsageError, match="cannot be exported with pad_to 30"):
        _ = encoder.padded_form
