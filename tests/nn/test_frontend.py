"""Front ends against plain padded convolutions of one item at a time."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from mmembed.batch import Packed, Padded
from mmembed.nn.frontend import AudioFrontend, DepthwiseConv, VideoFrontend


def test_packed_convolution_is_zero_padding_of_each_item() -> None:
    torch.manual_seed(0)
    conv = DepthwiseConv(6, 5)
    items = [torch.randn(n, 6) for n in (1, 4, 9)]
    packed = Packed(torch.cat(items), torch.tensor([1, 4, 9]))
    expected = []
    for x in items:
        row = conv.norm(x).T[None]
        smoothed = F.conv1d(row, conv.conv.weight, conv.conv.bias, padding=2, groups=6)
        expected.append(x + F.gelu(smoothed[0].T))
    torch.testing.assert_close(conv(packed).values, torch.cat(expected))
    torch.testing.assert_close(conv(packed.pad()).pack().values, torch.cat(expected))


def test_audio_front_end_is_zero_padding_of_each_item() -> None:
    torch.manual_seed(0)
    frontend = AudioFrontend(80, 3, 8)
    items = [torch.randn(n, 80) for n in (1, 2, 7, 8, 33)]
    expected = []
    for x in items:
        y = x[None, None]
        for conv in (frontend.first, frontend.second):
            y = F.gelu(F.conv2d(y, conv.weight, conv.bias, stride=2, padding=1))
        frames = frontend.project(y[0].transpose(0, 1).flatten(1))
        expected.append(frontend.context(Packed(frames, torch.tensor([len(frames)]))).values)
    padded = Padded.stack(items)
    for found in (frontend(padded.pack()), frontend(padded).pack()):
        assert found.lengths.tolist() == [1, 1, 2, 2, 9]
        torch.testing.assert_close(found.values, torch.cat(expected), rtol=1e-5, atol=1e-5)


def test_video_front_end_keeps_the_frame_rate_and_sees_brightness() -> None:
    torch.manual_seed(0)
    frontend = VideoFrontend(64, 4, 8)
    dark = torch.zeros(5, 64, 64, dtype=torch.uint8)
    found = frontend(Padded.stack([dark, dark + 200]).pack())
    assert found.lengths.tolist() == [5, 5]
    first, second = found.split()
    assert not torch.allclose(first, second)
