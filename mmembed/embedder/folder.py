"""The encoder as a folder: data alone, nothing that could run.

folder/
    config.json             sizes of the encoder, version, what it was trained with and scored
    model.safetensors       weights
    vocabulary.model        sentencepiece, of the text stream
    recogniser.safetensors  the CTC head; older folders have none
    alphabet.model          its output units
    README.md               the model card
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save
from torch import nn

from mmembed import __version__
from mmembed.config import from_dict, read_json
from mmembed.embedder.card import model_card, trained_on
from mmembed.embedder.recogniser import Recogniser
from mmembed.encoder import Encoder, EncoderConfig
from mmembed.errors import CorruptError, MmembedError
from mmembed.features.text import Vocabulary
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps
from mmembed.nn.weights import check_file, read_module

WEIGHTS, CONFIG, VOCABULARY = "model.safetensors", "config.json", "vocabulary.model"
HEAD, ALPHABET, CARD = "recogniser.safetensors", "alphabet.model", "README.md"
MOST_VOCABULARY: Final = 1 << 28  # bytes; 250,000 pieces take 5 MB
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
        data: what it was trained on, see `mmembed.recipes.pretrain_data.describe_data`.
        evaluation: its scores, see `mmembed.recipes.evaluation.evaluate_speech`.
    """
    config = {
        "version": __version__,
        "encoder": asdict(encoder.config),
        "run": run,
        "data": list(data),
        "evaluation": evaluation
        and {  # without transcripts, which may not be ours to pass on
            split: {key: held for key, held in scores.items() if key != "samples"}
            for split, scores in evaluation.items()
        },
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
        config = read_json(folder / CONFIG)
        sizes = from_dict(EncoderConfig, config.get("encoder"), "encoder.")
        encoder = read_module(lambda: Encoder(sizes), folder / WEIGHTS)
        vocabulary = _vocabulary(folder / VOCABULARY)
        if len(vocabulary) != sizes.vocabulary_size:
            raise CorruptError(
                f"{VOCABULARY} has {len(vocabulary)} pieces, {CONFIG} says {sizes.vocabulary_size}"
            )
        recogniser = None
        if (folder / HEAD).exists() or (folder / ALPHABET).exists():
            alphabet = _vocabulary(folder / ALPHABET)
            width, classes = sizes.width, len(alphabet)
            recogniser = read_module(
                lambda: Recogniser(nn.Linear(width, classes), alphabet), folder / HEAD
            )
        with (folder / WEIGHTS).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _check_card(config, sha256)
    except FileNotFoundError as error:
        raise CorruptError(
            f"{folder}: not an encoder folder, {error.filename} is missing"
        ) from None
    except (ValueError, OSError, MmembedError) as error:
        what = str(error).splitlines()[0].removeprefix(f"{folder}/")
        raise CorruptError(f"{folder}: not a usable encoder folder: {what}") from None
    return Saved(encoder, vocabulary, recogniser, config, sha256)


def _vocabulary(path: Path) -> Vocabulary:
    check_file(path)
    if path.stat().st_size > MOST_VOCABULARY:
        raise CorruptError(f"{path}: larger than {MOST_VOCABULARY >> 20} MB; it is no vocabulary")
    return Vocabulary(path.read_bytes())


def _check_card(config: Mapping[str, Any], sha256: str) -> None:
    """What stands beside the sizes is what a card can be written of, so all else can read it."""
    try:
        model_card(config, sha256, True)
        trained_on(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise CorruptError(f"{CONFIG}: run, data or evaluation cannot be read ({what})") from None


def _weights(module: nn.Module) -> bytes:
    tensors = {name: value.contiguous().cpu() for name, value in module.state_dict().items()}
    data: bytes = save(tensors)
    return data
