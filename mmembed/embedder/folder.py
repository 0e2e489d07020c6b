"""The encoder as a folder: data alone, nothing that could run.

folder/
    config.json             sizes of the encoder, version, what it was trained with and scored
    model.safetensors       weights
    vocabulary.model        sentencepiece, of the text stream
    recogniser.safetensors  the CTC head; older folders have none
    alphabet.model          its letters
    README.md               the model card
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn

from mmembed import __version__
from mmembed.config import from_dict, to_dict
from mmembed.data.atomic import atomic_file
from mmembed.embedder.card import model_card
from mmembed.embedder.recogniser import Recogniser
from mmembed.encoder import Encoder, EncoderConfig
from mmembed.errors import CorruptError, MmembedError
from mmembed.features.text import Vocabulary
from mmembed.strict_json import dumps

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.model"
HEAD, ALPHABET, CARD = "recogniser.safetensors", "alphabet.model", "README.md"
FILES: Final = (WEIGHTS, VOCABULARY, HEAD, ALPHABET, CARD, CONFIG)


@dataclass(frozen=True)
class Saved:
    """What stands in an encoder folder.

    Attributes:
        encoder: the network.
        vocabulary: of its text stream.
        recogniser: the CTC head, None where the folder has none.
        config: config.json.
        sha256: of model.safetensors.
    """

    encoder: Encoder
    vocabulary: Vocabulary
    recogniser: Recogniser | None
    config: Mapping[str, Any]
    sha256: str


def save_encoder(
    folder: Path,
    encoder: Encoder,
    vocabulary: Vocabulary,
    run: Mapping[str, Any],
    *,
    recogniser: Recogniser | None = None,
    data: Sequence[Mapping[str, Any]] = (),
    evaluation: Mapping[str, Any] | None = None,
) -> None:
    """Write the folder of an encoder after a run; the same gives the same bytes.

    Args:
        folder: made if it is not there.
        encoder: the network.
        vocabulary: of its text stream.
        run: all settings.
        recogniser: the CTC head.
        data: what it was trained on, see `mmembed.recipes.corpus.describe_data`.
        evaluation: its scores, see `mmembed.recipes.evaluation.evaluate_speech`.
    """
    config = {
        "version": __version__,
        "encoder": to_dict(encoder.config),
        "run": run,
        "data": list(data),
        "evaluation": evaluation and _without_samples(evaluation),
    }
    write_folder(folder, encoder, vocabulary, recogniser, config)


def write_folder(
    folder: Path,
    encoder: Encoder,
    vocabulary: Vocabulary,
    recogniser: Recogniser | None,
    config: Mapping[str, Any],
) -> None:
    """Write `FILES`; a folder that held another encoder keeps nothing of it."""
    weights = _weights(encoder)
    files = {WEIGHTS: weights, VOCABULARY: vocabulary.to_bytes()}
    if recogniser is not None:
        files |= {HEAD: _weights(recogniser), ALPHABET: recogniser.alphabet.to_bytes()}
    card = model_card(config, hashlib.sha256(weights).hexdigest(), recogniser is not None)
    files[CARD] = card.encode()
    files[CONFIG] = (dumps(config, indent=1, sort_keys=True) + "\n").encode()
    for name in FILES:
        if name in files:
            with atomic_file(folder / name) as file:
                file.write(files[name])
        else:
            (folder / name).unlink(missing_ok=True)


def is_encoder(folder: Path) -> bool:
    """Whether `write_folder` has written all of a folder; the last of its files is there."""
    return (folder / CONFIG).exists()


def read_folder(folder: Path) -> Saved:
    """Read what `write_folder` wrote.

    Raises:
        CorruptError: a file is missing, damaged, or of another version.
    """
    try:
        config = json.loads((folder / CONFIG).read_text())
        encoder = Encoder(from_dict(EncoderConfig, config["encoder"]))
        weights = (folder / WEIGHTS).read_bytes()
        encoder.load_state_dict(load(weights))
        vocabulary = Vocabulary((folder / VOCABULARY).read_bytes())
        recogniser = None
        if (folder / HEAD).exists() or (folder / ALPHABET).exists():
            alphabet = Vocabulary((folder / ALPHABET).read_bytes())
            recogniser = Recogniser.from_weights(load((folder / HEAD).read_bytes()), alphabet)
    except FileNotFoundError as error:
        raise CorruptError(
            f"{folder}: not an encoder folder, {error.filename} is missing"
        ) from None
    except (ValueError, KeyError, RuntimeError, SafetensorError, MmembedError) as error:
        what = str(error).splitlines()[0]
        raise CorruptError(f"{folder}: not a usable encoder folder: {what}") from None
    return Saved(encoder, vocabulary, recogniser, config, hashlib.sha256(weights).hexdigest())


def _without_samples(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """Scores without transcripts, which may not be ours to pass on."""
    return {
        name: {key: held for key, held in scores.items() if key != "samples"}
        for name, scores in evaluation.items()
    }


def _weights(module: nn.Module) -> bytes:
    tensors = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    data: bytes = save(tensors)
    return data
