"""The frozen encoder as a folder, and as a function from examples to vectors.

folder/
    config.json        encoder sizes, library version, what it was trained with
    model.safetensors  weights
    vocabulary.model   sentencepiece
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from mmembed import __version__
from mmembed.batch import Encoding
from mmembed.config import from_dict, to_dict
from mmembed.data.atomic import atomic_file
from mmembed.data.collate import collate, to_item
from mmembed.data.example import Example
from mmembed.encoder import FRAME_RATE, Encoder, EncoderConfig
from mmembed.errors import CorruptError, MmembedError
from mmembed.features.text import Vocabulary

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.model"


def save_encoder(
    folder: Path, encoder: Encoder, vocabulary: Vocabulary, run: Mapping[str, Any]
) -> None:
    """Write an encoder folder; the same encoder and run give the same bytes."""
    weights = {name: value.contiguous().cpu() for name, value in encoder.state_dict().items()}
    config = {"version": __version__, "encoder": to_dict(encoder.config), "run": run}
    files = {
        WEIGHTS: save(weights),
        VOCABULARY: vocabulary.to_bytes(),
        CONFIG: (json.dumps(config, indent=1, sort_keys=True) + "\n").encode(),
    }
    for name, data in files.items():
        with atomic_file(folder / name) as file:
            file.write(data)


class Embedder:
    """A frozen encoder with its vocabulary.

    Attributes:
        encoder: in evaluation mode, without gradients.
        vocabulary: of the text stream.
        sha256: of the weights file; names the encoder in every shard.
    """

    def __init__(
        self, encoder: Encoder, vocabulary: Vocabulary, sha256: str, device: torch.device
    ) -> None:
        self.encoder = encoder.to(device).eval().requires_grad_(False)
        self.device = device
        self.vocabulary = vocabulary
        self.sha256 = sha256

    @classmethod
    def from_pretrained(cls, folder: Path | str, device: torch.device | str = "cpu") -> Embedder:
        """Load an encoder folder.

        Raises:
            CorruptError: a file is missing, damaged, or of another version.
        """
        folder = Path(folder)
        try:
            config = json.loads((folder / CONFIG).read_text())
            encoder = Encoder(from_dict(EncoderConfig, config["encoder"]))
            encoder.load_state_dict(load_file(folder / WEIGHTS))
            vocabulary = Vocabulary((folder / VOCABULARY).read_bytes())
            digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
        except FileNotFoundError as error:
            raise CorruptError(
                f"{folder}: not an encoder folder, {error.filename} is missing"
            ) from None
        except (ValueError, KeyError, RuntimeError, SafetensorError, MmembedError) as error:
            what = str(error).splitlines()[0]
            raise CorruptError(f"{folder}: not a usable encoder folder: {what}") from None
        return cls(encoder, vocabulary, digest, torch.device(device))

    @property
    def description(self) -> dict[str, Any]:
        """What a reader of the vectors has to know of them."""
        return {
            "encoder_sha256": self.sha256,
            "version": __version__,
            "width": self.encoder.config.width,
            "frame_rate": FRAME_RATE,
            "layers": list(self.encoder.layer_names),
        }

    @torch.no_grad()
    def __call__(self, examples: Sequence[Example]) -> Encoding:
        """Embed examples, each with at least one stream; the result is on the CPU."""
        items = [to_item(example, self.vocabulary) for example in examples]
        encoding: Encoding = self.encoder(collate(items).to(self.device).inputs)
        return encoding.to("cpu")
