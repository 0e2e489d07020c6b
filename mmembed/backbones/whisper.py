"""The encoder of Whisper (Radford et al. 2022, arXiv 2212.04356) at the own length of each clip.

Whisper is made to see 30 seconds, silence behind the clip included. Here it sees the clip alone:
the same log-mel frames, cut to the clip, and the first positions. Most of the cost was silence, and
so was most of each layer; `pad_to=30` gives the layers that the usual way gives for the clip.
"""

from __future__ import annotations

from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.backbones.packed import attend_packed
from mmembed.backbones.stream import PaddedForm, StreamEncoder
from mmembed.batch import Packed, Padded
from mmembed.config import Hz, Seconds
from mmembed.errors import UsageError
from mmembed.features.audio import SAMPLE_RATE

FFT: Final = 400  # samples
HOP: Final = 160  # samples from one frame of the log-mel spectrum to the next
STEP: Final = 2 * HOP  # samples from one step of the layers to the next: a convolution halves them
WINDOW: Final = 30 * SAMPLE_RATE  # samples that all positions cover
CONTEXT: Final = 2 * SAMPLE_RATE  # samples on each side that a window of a longer clip only hears
LEAST_POWER: Final = 1e-10
RANGE: Final = 8.0  # decades below the loudest value; what is softer counts as that soft


class WhisperStream(StreamEncoder):
    """Whisper's encoder. A clip above 30 s is read by windows of 30 s.

    Each window is a clip of its own, with its own loudest value and positions. Windows overlap by
    twice `CONTEXT`; the steps of the middle of each are kept.

    Raises:
        UsageError: the model has positions for another time than 30 s.
    """

    stream = "audio"
    filters: Tensor

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = model.config
        if config.max_source_positions * STEP != WINDOW:
            raise UsageError(
                f"whisper: has {config.max_source_positions} positions, and {WINDOW // STEP} make "
                "30 seconds"
            )
        config.preprocessing = {"pad_to": getattr(config, "preprocessing", {}).get("pad_to")}
        attend_packed(model)
        self.register_buffer("filters", mel_filters(config.num_mel_bins), persistent=False)

    @property
    def pad_to(self) -> Seconds | None:
        """Shorter clips are seen with silence up to this length, above 0 and at most 30 s; the
        layers still have the steps of the clip alone. None, as at first: clips are seen as they
        are. `config` tells it.
        """
        seconds: Seconds | None = self.model.config.preprocessing["pad_to"]
        return seconds

    @pad_to.setter
    def pad_to(self, seconds: Seconds | None) -> None:
        if seconds is not None and not 0 < seconds <= WINDOW / SAMPLE_RATE:
            raise UsageError(f"pad_to {seconds}: must be above 0 and at most 30 seconds")
        self.model.config.preprocessing["pad_to"] = seconds

    @property
    def width(self) -> int:
        """See `StreamEncoder`."""
        return int(self.model.config.d_model)

    @property
    def rate(self) -> Hz:
        """See `StreamEncoder`."""
        return SAMPLE_RATE / STEP

    @property
    def blocks(self) -> nn.ModuleList:
        """See `StreamEncoder`."""
        layers: nn.ModuleList = self.model.layers
        return layers

    def steps(self, lengths: Tensor) -> Tensor:
        """See `StreamEncoder`: one for each 20 ms, also for the last part of them."""
        return (lengths + STEP - 1) // STEP

    def forward(self, inputs: Packed) -> list[Packed]:
        """See `StreamEncoder`."""
        steps = self.steps(inputs.lengths)
        seen, kept = self._windows(inputs)
        if not seen:
            empty = Packed(inputs.values.new_zeros(0, self.width), steps)
            return [empty] * (len(self.blocks) + 1)
        embedded = Packed.concatenate([self._embed(window) for window in seen])
        values = F.dropout(embedded.values, self.model.dropout, self.training)
        layers = [values]
        for block in self.blocks:
            values = block(values[None], None, lengths=embedded.lengths)[0]
            layers.append(values)
        layers[-1] = self.model.layer_norm(values)
        if embedded.lengths.tolist() != [part.stop - part.start for part in kept]:
            layers = [torch.cat([layer[part] for part in kept]) for layer in layers]
        return [Packed(layer, steps) for layer in layers]

    @property
    def padded_form(self) -> PaddedForm:
        """See `StreamEncoder`: log-mel of clips of at most 30 s."""
        if self.pad_to is not None:
            raise UsageError(f"whisper: cannot be exported with pad_to {self.pad_to:g}")
        bins = self.model.config.num_mel_bins
        return PaddedForm(
            f"mmembed.backbones.whisper.log_mel with mel_filters({bins}), transposed: log-mel of "
            "samples in [-1, 1] at 16 kHz, as WhisperFeatureExtractor of transformers makes it, "
            "cut to the clip",
            dtype="float32",
            shape=(bins,),
            rate=SAMPLE_RATE / HOP,
            hop=HOP,
            longest=WINDOW // HOP,
        )

    def to_padded(self, inputs: Packed) -> Padded:
        """See `StreamEncoder`."""
        return Padded.stack([log_mel(clip, self.filters).T for clip in inputs.split()])

    def padded(self, inputs: Padded) -> list[Padded]:
        """See `StreamEncoder`."""
        frames = F.gelu(self.model.conv1(inputs.values.transpose(1, 2))).transpose(1, 2)
        # The next convolution, too, finds zeros behind each clip.
        frames = inputs.with_values(frames).zeroed().values.transpose(1, 2)
        values = F.gelu(self.model.conv2(frames)).transpose(1, 2)
        table = self.model.embed_positions.weight
        places = torch.arange(values.shape[1], device=values.device).clamp(max=len(table) - 1)
        steps = Padded(values + table[places], self.steps(inputs.lengths * HOP))
        mask = steps.mask[:, None, None]
        layers = [steps.values]
        for block in self.blocks:
            layers.append(block(layers[-1], mask))
        layers[-1] = self.model.layer_norm(layers[-1])
        return [steps.with_values(layer) for layer in layers]

    def _windows(self, inputs: Packed) -> tuple[list[Tensor], list[slice]]:
        """Waveforms of at most 30 s, and which of all their steps, counted on, belong to clips."""
        least = 0 if self.pad_to is None else round(self.pad_to * SAMPLE_RATE)
        stride = WINDOW - 2 * CONTEXT
        seen: list[Tensor] = []
        kept, begin = [], 0
        for clip in inputs.split():
            if not len(clip):
                continue
            last = max(0, -((WINDOW - len(clip)) // stride))
            for number in range(last + 1):
                window = clip[number * stride :][:WINDOW]
                first_step = CONTEXT // STEP if number else 0
                end_step = -(-len(window) // STEP) if number == last else (WINDOW - CONTEXT) // STEP
                kept.append(slice(begin + first_step, begin + end_step))
                seen.append(F.pad(window, (0, max(0, least - len(window)))))
                begin += -(-len(seen[-1]) // STEP)
        return seen, kept

    def _embed(self, window: Tensor) -> Tensor:
        """(N,) samples to (T, D): convolutions and positions."""
        frames: Any = log_mel(window, self.filters)[None]
        frames = F.gelu(self.model.conv2(F.gelu(self.model.conv1(frames))))[0].T
        embedded: Tensor = frames + self.model.embed_positions.weight[: len(frames)]
        return embedded


def log_mel(samples: Tensor, filters: Tensor) -> Tensor:
    """The log-mel spectrum of a clip of at most 30 s as Whisper has it, without the silence.

    The frames are those of the clip with silence up to 30 s, of which frames behind the clip that
    hear its last samples count for the loudest value.

    Args:
        samples: (N,) float32, N at least 1.
        filters: (M, F) float32.

    Returns:
        (M, T), one frame for each 10 ms, the last of them for what is left.
    """
    heard = min(WINDOW, len(samples) + 2 * FFT)  # all frames behind are silent
    with torch.autocast(samples.device.type, enabled=False):
        spectrum = torch.stft(
            F.pad(samples, (0, heard - len(samples))),
            FFT,
            HOP,
            window=torch.hann_window(FFT, device=samples.device),
            return_complex=True,
        )[:, :-1]
        power = filters @ spectrum.abs().square()
        decades = power.clamp(min=LEAST_POWER).log10()
        decades = decades.maximum(decades.max() - RANGE)
        return (decades[:, : -(-len(samples) // HOP)] + 4.0) / 4.0


def mel_filters(bins: int) -> Tensor:
    """(M, F), M = bins: the triangles of the mel scale over the frequencies of the spectrum."""
    from transformers.audio_utils import mel_filter_bank

    triangles = mel_filter_bank(
        1 + FFT // 2, bins, 0.0, SAMPLE_RATE / 2, SAMPLE_RATE, norm="slaney", mel_scale="slaney"
    )
    return torch.from_numpy(triangles.T).float().contiguous()
