"""What a pretrained encoder of one stream is, whatever its architecture and its stream.

The modules of transformers do the arithmetic; what they see is decided here. A clip is encoded at
its own length, and neither padding nor another item of the batch may change a layer: items are
given to a module one at a time, packed, or in equal lengths, whichever is exact for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from mmembed.batch import Packed, Padded
from mmembed.config import Hz
from mmembed.errors import UsageError

# What a configuration of transformers says of files, of versions and of tasks, not of the module.
BOOKKEEPING = frozenset(
    ("_name_or_path", "architectures", "dtype", "id2label", "label2id", "torch_dtype",
     "transformers_version")
)  # fmt: skip


@dataclass(frozen=True)
class PaddedForm:
    """How clips are given to what runs on padded steps.

    Attributes:
        made_by: the function that makes it, and of what.
        dtype: name of a torch type.
        shape: of one step.
        rate: steps a second; 0 for tokens.
        values: how many values there are, from 0 on; 0 for numbers of other types than integers.
        hop: steps of the packed form in one of these.
        longest: most steps of a clip; 0 = any number.
    """

    made_by: str
    dtype: str
    shape: tuple[int, ...] = ()
    rate: Hz = 0
    values: int = 0
    hop: int = 1
    longest: int = 0


class StreamEncoder(nn.Module, ABC):
    """An encoder of audio, of video or of text, and all of its layers.

    Packed inputs have these values:
        audio: (N,) float32 samples in [-1, 1], mono, at 16 kHz.
        video: (N, S, S) grey or (N, S, S, 3) RGB uint8 face crops of any size S, at 25 Hz.
        text: (N,) int64 token ids of the encoder's own tokenizer, special tokens included.

    Attributes:
        stream: one of `mmembed.streams.STREAMS`.
        preprocessing: the settings of `preprocessor_config.json` that the encoder reads; they are
            found in `model.config.preprocessing`, and missing there if the file lacks them.
        model: the module of transformers, without heads.
    """

    stream: ClassVar[str]
    preprocessing: ClassVar[tuple[str, ...]] = ()

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    @property
    def config(self) -> dict[str, Any]:
        """Plain JSON from which `pretrained.build_encoder` makes the same module."""
        settings = self.model.config.to_dict()
        return {name: value for name, value in settings.items() if name not in BOOKKEEPING}

    @property
    @abstractmethod
    def width(self) -> int:
        """D, the width of all layers."""

    @property
    @abstractmethod
    def rate(self) -> Hz:
        """Steps of the layers in a second; 0 for text, whose steps are tokens."""

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The transformer blocks, lowest first: L of them, and L + 1 layers."""

    @abstractmethod
    def steps(self, lengths: Tensor) -> Tensor:
        """(B,) int64 input lengths to (B,) steps of the layers; 0 stays 0, all else gives one or
        more.
        """

    @abstractmethod
    def forward(self, inputs: Packed) -> list[Packed]:
        """The L + 1 layers, each (N', D) with `steps` steps an item.

        Layer 0 is what the first block reads. The layers of an item are those that transformers
        names `hidden_states` for this item alone. An item of length 0 has no steps.
        """

    @property
    def padded_form(self) -> PaddedForm:
        """What `padded` reads.

        Raises:
            UsageError: the layers are not to be had from padded clips.
        """
        raise self._not_padded()

    def to_padded(self, inputs: Packed) -> Padded:
        """Clips in the `padded_form`."""
        return inputs.pad()

    def padded(self, inputs: Padded) -> list[Padded]:
        """The same layers as `forward` in tensors whose shapes depend on no length, for export.

        Args:
            inputs: clips in the `padded_form`, zeros in the padding, each with 1 step at least and
                none with more than the form's `longest`.

        Returns:
            L + 1 layers (B, T', D), anything in the padding.

        Raises:
            UsageError: as `padded_form`.
        """
        raise self._not_padded()

    def _not_padded(self) -> UsageError:
        return UsageError(
            f"{self.model.config.model_type}: cannot be exported, because padding of a clip would "
            "change its layers"
        )
