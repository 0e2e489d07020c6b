"""Front ends: one for each stream, from features to vectors of one width at 25 Hz.

None of them lets a step see padding or another item: every convolution over time works on packed
steps with a gap of zeros between items, or on padded ones with zeros behind each item, the picture
convolutions on single frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.batch import Packed, Padded, Steps

BUCKET = 16  # steps: as few as cost little, and as many as leave few sizes


class DepthwiseConv(nn.Module):
    """A depthwise convolution over time, added to its input; equals zero padding of each item.

    Packed items are laid out in one row with `size // 2` zeros between neighbours, so that one call
    serves the whole batch.
    """

    def __init__(self, width: int, size: int) -> None:
        super().__init__()  # an odd size, so that steps stay in place
        self.conv = nn.Conv1d(width, width, size, groups=width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Steps) -> Steps:
        """(N, D) -> (N, D)."""
        gap = self.conv.kernel_size[0] // 2
        if isinstance(x, Padded):
            rows = x.with_values(self.norm(x.values)).zeroed().values.transpose(1, 2)
            smoothed = F.conv1d(
                rows, self.conv.weight, self.conv.bias, padding=gap, groups=self.conv.groups
            )
            return x.with_values(x.values + F.gelu(smoothed.transpose(1, 2)))
        starts = x.offsets[:-1] + gap * torch.arange(1, len(x.lengths) + 1)
        place = _rows(starts, x.lengths).to(x.values.device)
        total = _bucket(len(x.values) + gap * (len(x.lengths) + 1))
        normed = self.norm(x.values)
        row = normed.new_zeros(total, normed.shape[1]).index_copy(0, place, normed)
        # As a two-dimensional convolution over (1, D, 1, N): its channels-last layout is the row as
        # it stands, and the kernel takes half the time.
        weight = self.conv.weight[:, :, None]
        picture = F.conv2d(row.T[None, :, None], weight, self.conv.bias, groups=row.shape[1])
        smoothed = picture[0, :, 0].T
        return x.with_values(x.values + F.gelu(smoothed[place - gap]))


class AudioFrontend(nn.Module):
    """Log-mel at 100 Hz -> 25 Hz by two 3 x 3 convolutions of stride 2 in time and frequency.

    Packed items stand one below the other in one tall picture, each beginning at a multiple of 4
    (so that strides fall alike in every item) behind a zeroed gap: no item pays for a longer one.
    """

    def __init__(self, bands: int, channels: int, width: int) -> None:
        super().__init__()
        self.first = _channels_last(nn.Conv2d(1, channels, 3, stride=2, padding=1))
        self.second = _channels_last(nn.Conv2d(channels, channels, 3, stride=2, padding=1))
        self.project = nn.Linear(channels * (-(-bands // 4)), width)
        self.context = DepthwiseConv(width, 15)

    @staticmethod
    def frames(audio: Packed | Padded) -> Tensor:
        """(B,) frames of each item."""
        return (audio.lengths + 3) // 4

    def forward(self, audio: Steps) -> Steps:
        """(N, bands) -> (N', D), ceil(T / 4) steps for an item of T; in padding, zeros."""
        steps = self.frames(audio)
        values = audio.values.to(self.first.weight.dtype)
        if isinstance(audio, Padded):
            x = F.gelu(self.first(values[:, None])).transpose(1, 2)
            x = Padded(x, (audio.lengths + 1) // 2).zeroed().values.transpose(1, 2)
            x = F.gelu(self.second(x)).transpose(1, 2)  # (B, T / 4, channels, bands / 4)
        else:
            starts = (steps + 1).cumsum(0) - steps  # at 25 Hz, one zero step before each item
            height = _bucket(int((steps + 1).sum()) + 1)
            x = values.new_zeros(4 * height, values.shape[1])
            x = x.index_copy(0, _rows(4 * starts, audio.lengths).to(x.device), values)[None, None]
            x = F.gelu(self.first(x.to(memory_format=torch.channels_last)))
            outside = torch.ones(2 * height, dtype=torch.bool)
            outside[_rows(2 * starts, (audio.lengths + 1) // 2)] = False
            x = x.index_fill_(2, outside.nonzero()[:, 0].to(x.device), 0)
            x = F.gelu(self.second(x))[0].transpose(0, 1)  # (height, channels, bands / 4)
            x = x[_rows(starts, steps).to(x.device)]
        frames: Steps = type(audio)(self.project(x.flatten(-2)), steps)
        context: Steps = self.context(frames)
        return context


class VideoFrontend(nn.Module):
    """Grey face crops at 25 Hz -> 25 Hz: a small convolutional network on each frame, then a
    convolution over 7 frames, which sees motion.
    """

    def __init__(self, size: int, channels: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, channels, 8, stride=4, padding=2),
            nn.GELU(),
            nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Conv2d(2 * channels, 2 * channels, 3, stride=2, padding=1),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(2 * channels * (size // 16) ** 2, width),
        )
        self.context = DepthwiseConv(width, 7)

    @staticmethod
    def frames(video: Packed | Padded) -> Tensor:
        """(B,) frames of each item: its crops."""
        return video.lengths

    def forward(self, video: Steps) -> Steps:
        """(N, size, size) uint8 -> (N, D)."""
        pixels = (video.values.to(self.context.conv.weight.dtype) - 128) / 64
        pictures = pixels.flatten(0, -3)[:, None]
        if isinstance(video, Packed):
            number = len(pictures)
            surplus = _bucket(number) - number
            frames = self.trunk(F.pad(pictures, (0, 0) * 3 + (0, surplus)))[:number]
        else:
            frames = self.trunk(pictures).unflatten(0, pixels.shape[:-2])
        context: Steps = self.context(video.with_values(frames))
        return context


class TextFrontend(nn.Module):
    """Token ids -> vectors, one step a token."""

    def __init__(self, vocabulary_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, width)

    @staticmethod
    def frames(text: Packed | Padded) -> Tensor:
        """(B,) tokens of each item."""
        return text.lengths

    def forward(self, text: Steps) -> Steps:
        """(N,) int64 -> (N, D)."""
        return text.with_values(self.embedding(text.values))


def _bucket(size: int) -> int:
    """A size at least as large, one of few: oneDNN compiles its kernels for each size anew."""
    return -(-size // BUCKET) * BUCKET


def _channels_last(conv: nn.Conv2d) -> nn.Conv2d:
    """The same layer with its weights laid out so; twice as fast on a CPU."""
    laid_out = torch.empty_like(conv.weight, memory_format=torch.channels_last)
    conv.weight.data = laid_out.data.copy_(conv.weight.data)
    return conv


def _rows(starts: Tensor, lengths: Tensor) -> Tensor:
    """(N,) int64: `starts[b] + 0, 1, ... lengths[b] - 1` for every item b, one after another."""
    ends = lengths.cumsum(0)
    return torch.arange(int(ends[-1])) + (starts - ends + lengths).repeat_interleave(lengths)
