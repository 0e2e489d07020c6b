"""The encoders of wav2vec 2.0's kind: wav2vec 2.0, HuBERT, data2vec-audio and WavLM.

Samples go through convolutions to one step each 20 ms, a wide convolution tells steps where they
are, and blocks follow. Convolutions see one item at a time: the first is normalised over time in
the base models, so that padding would change all of its steps. Blocks see all items packed.

Masking of spans (SpecAugment) and the dropping of whole blocks in training are left to the caller.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, ClassVar, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed.backbones.packed import attend_packed
from mmembed.backbones.stream import StreamEncoder
from mmembed.batch import Packed, precise
from mmembed.config import Hz
from mmembed.features.audio import SAMPLE_RATE

VARIANCE_FLOOR: Final = 1e-7  # added to the variance of a clip, as transformers does
QUERIES: Final = 512  # that meet all keys of an item at once in WavLM: bounds memory


class Wav2Vec2Stream(StreamEncoder):
    """wav2vec 2.0 (Baevski et al. 2020, arXiv 2006.11477), HuBERT (Hsu et al. 2021, arXiv
    2106.07447) and data2vec-audio (Baevski et al. 2022, arXiv 2202.03555).

    Clips are brought to mean 0 and variance 1 where `do_normalize` of the model's
    `preprocessor_config.json` says so. Without that file they are where all convolutions have a
    LayerNorm; where the first has a norm over time, level and offset of a clip change nothing.
    A clip that is shorter than what one step hears (25 ms) is continued by zeros.
    """

    stream = "audio"
    preprocessing: ClassVar[tuple[str, ...]] = ("do_normalize",)

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        config: Any = model.config
        by_layer = getattr(config, "feat_extract_norm", "layer") == "layer"  # data2vec has no other
        read = getattr(config, "preprocessing", {})
        config.preprocessing = {"do_normalize": read.get("do_normalize", by_layer)}
        self.model.adapter = None  # it stands behind the last layer
        self.model.register_parameter("masked_spec_embed", None)
        first = self.model.feature_extractor.conv_layers[0].conv
        first.forward = MethodType(_convolve_samples, first)
        self._pack()

    @property
    def width(self) -> int:
        """See `StreamEncoder`."""
        return int(self.model.config.hidden_size)

    @property
    def rate(self) -> Hz:
        """See `StreamEncoder`."""
        rate = float(SAMPLE_RATE)
        for stride in self.model.config.conv_stride:
            rate /= stride
        return rate

    @property
    def blocks(self) -> nn.ModuleList:
        """See `StreamEncoder`."""
        layers: nn.ModuleList = self.model.encoder.layers
        return layers

    @property
    def receptive_field(self) -> int:
        """Samples that one step hears, the least that gives a step."""
        heard = 1
        config = self.model.config
        for kernel, stride in reversed([*zip(config.conv_kernel, config.conv_stride, strict=True)]):
            heard = (heard - 1) * stride + kernel
        return heard

    def steps(self, lengths: Tensor) -> Tensor:
        """See `StreamEncoder`."""
        config = self.model.config
        steps = lengths.clamp(min=self.receptive_field)
        for kernel, stride in zip(config.conv_kernel, config.conv_stride, strict=True):
            steps = (steps - kernel) // stride + 1
        return steps.masked_fill(lengths == 0, 0)

    def forward(self, inputs: Packed) -> list[Packed]:
        """See `StreamEncoder`."""
        steps = self.steps(inputs.lengths)
        items = [self._embed(clip) for clip in inputs.split() if len(clip)]
        if not items:
            empty = Packed(inputs.values.new_zeros(0, self.width), steps)
            return [empty] * (len(self.blocks) + 1)
        encoder = self.model.encoder
        values = torch.cat(items)
        if not type(encoder).__name__.endswith("StableLayerNorm"):
            values = encoder.layer_norm(values)
        layers = [encoder.dropout(values)]
        given = self._given(steps)
        for block in self.blocks:
            values = block(layers[-1][None], **given)
            layers.append((values[0] if isinstance(values, tuple) else values)[0])
        return [Packed(layer, steps) for layer in layers]

    def _pack(self) -> None:
        attend_packed(self.model)

    def _given(self, steps: Tensor) -> dict[str, Any]:
        """What each block is called with beside its input."""
        return {"lengths": steps}

    def _embed(self, clip: Tensor) -> Tensor:
        """(N,) samples to (T, D): all that stands before the norm and the blocks."""
        clip = precise(clip)
        if self.model.config.preprocessing["do_normalize"]:
            variance, mean = torch.var_mean(clip, correction=0)
            clip = (clip - mean) / (variance + VARIANCE_FLOOR).sqrt()
        frames = F.pad(clip, (0, max(0, self.receptive_field - len(clip))))[None, None]
        # Not the whole extractor: in training it wants the gradient of its input.
        for layer in self.model.feature_extractor.conv_layers:
            frames = layer(frames)
        projected = self.model.feature_projection(frames.transpose(1, 2))
        if isinstance(projected, tuple):
            projected = projected[0]
        embedded: Tensor = projected + self.model.encoder.pos_conv_embed(projected)
        return embedded[0]


def _convolve_samples(self: Any, samples: Tensor) -> Tensor:
    """The first convolution, (1, 1, N) to (1, C, T), as a matrix product: on a CPU it takes a sixth
    of the time, as the many channels of the result have but one to come from.
    """
    windows = samples[0, 0].unfold(0, self.kernel_size[0], self.stride[0])
    convolved: Tensor = self.weight[:, 0] @ windows.T
    return (convolved if self.bias is None else convolved + self.bias[:, None])[None]


class WavLMStream(Wav2Vec2Stream):
    """WavLM (Chen et al. 2021, arXiv 2110.13900): blocks add a learned bias to attention, which
    depends on the distance of two steps and is gated by the query.
    """

    def _pack(self) -> None:
        for attention in self._attentions():
            attention.forward = MethodType(_attend_by_distance, attention)

    def _given(self, steps: Tensor) -> dict[str, Any]:
        reach = int(steps.max()) - 1
        first = self._attentions()[0]  # its table serves all blocks
        distances = torch.arange(-reach, reach + 1, device=first.rel_attn_embed.weight.device)
        bias = first.rel_attn_embed(first._relative_positions_bucket(distances)).T
        return {"lengths": steps, "position_bias": bias}

    def _attentions(self) -> list[Any]:
        return [block.attention for block in self.blocks]


def _attend_by_distance(
    self: Any,
    hidden_states: Tensor,
    attention_mask: None = None,
    position_bias: Tensor | None = None,
    index: int = 0,
    *,
    lengths: Tensor,
) -> tuple[Tensor, None, Tensor]:
    """WavLM's attention within each item, in place of `WavLMAttention.forward`.

    Args:
        self: the module with the weights.
        hidden_states: (1, N, D).
        attention_mask: none.
        position_bias: (H, 2 R + 1) for the distances -R to R from a query to a key.
        index: of the block; not needed.
        lengths: (B,) int64 on the CPU, at most R + 1.

    Returns:
        (1, N, D), nothing, and the bias for the next block.
    """
    assert position_bias is not None
    hidden = hidden_states[0]
    shape = (len(hidden), self.num_heads, -1)
    gates = self.gru_rel_pos_linear(hidden.view(shape)).view(*shape[:2], 2, 4).sum(-1).sigmoid()
    gate = gates[..., :1] * (gates[..., 1:] * self.gru_rel_pos_const.view(-1, 1) - 1.0) + 2.0
    projected = [f(hidden).view(shape) for f in (self.q_proj, self.k_proj, self.v_proj)]
    # (1, H, N, ...), then the same of each item.
    parts = [x.transpose(0, 1)[None].split(lengths.tolist(), 2) for x in (*projected, gate)]
    dropout = self.dropout if self.training else 0.0
    reach = position_bias.shape[1] // 2
    attended = []
    for query, key, value, scale in zip(*parts, strict=True):
        size = query.shape[2]
        windows = position_bias.unfold(1, max(size, 1), 1)  # row R - i: the distances from query i
        for start in range(0, size, QUERIES):
            end = min(start + QUERIES, size)
            bias = scale[:, :, start:end] * windows[:, reach - end + 1 : reach - start + 1].flip(1)
            attended.append(
                F.scaled_dot_product_attention(query[:, :, start:end], key, value, bias, dropout)
            )
    joined = torch.cat(attended, 2)[0].transpose(0, 1).flatten(1)
    return self.out_proj(joined)[None], None, position_bias
