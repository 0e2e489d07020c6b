"""The encoder as a folder: data alone, nothing that could run.

folder/
    config.json             sizes of the encoder, version, what it was trained with and scored
    model.safetensors       weights
    vocabulary.model        sentencepiece, of a text stream of ours
    tokenizer.json          of a pretrained text encoder
    recogniser.safetensors  the CTC head; older folders have none
    alphabet.model          its output units
    README.md               the model card
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from safetensors.torch import save
from torch import nn

from mmembed import __version__
from mmembed.backbones.lora import LoraLinear, merge_lora
from mmembed.backbones.pretrained import Pretrained, build_encoder, digest, load_pretrained
from mmembed.backbones.stream import StreamEncoder
from mmembed.backbones.text import TextTokenizer
from mmembed.config import from_dict, read_json
from mmembed.embedder.card import model_card, trained_on
from mmembed.embedder.recogniser import Recogniser
from mmembed.encoder import Encoder
from mmembed.errors import CorruptError, MmembedError
from mmembed.features.text import Vocabulary
from mmembed.io.atomic import atomic_file
from mmembed.io.json import dumps, shown
from mmembed.nn.weights import check_file, read_module
from mmembed.pretrained_encoder import PretrainedEncoder
from mmembed.settings.encoder import EncoderConfig
from mmembed.streams import STREAMS

WEIGHTS, CONFIG = "model.safetensors", "config.json"
VOCABULARY, TOKENIZER = "vocabulary.model", "tokenizer.json"
HEAD, ALPHABET, CARD = "recogniser.safetensors", "alphabet.model", "README.md"
MOST_VOCABULARY: Final = 1 << 28  # bytes; 250,000 pieces take 5 MB
FILES: Final = (WEIGHTS, VOCABULARY, TOKENIZER, HEAD, ALPHABET, CARD, CONFIG)


@dataclass(frozen=True)
class Saved:
    """What stands in an encoder folder.

    Attributes:
        encoder: the network.
        subwords: of its text stream; None = it has none.
        recogniser: the CTC head, None where the folder has none.
        config: config.json.
        sha256: of model.safetensors; of pretrained encoders alone, what names these (`name_of`).
    """

    encoder: Encoder | PretrainedEncoder
    subwords: Vocabulary | TextTokenizer | None
    recogniser: Recogniser | None
    config: Mapping[str, Any]
    sha256: str


def save_encoder(
    folder: Path,
    encoder: Encoder,
    subwords: Vocabulary | TextTokenizer,
    run: Mapping[str, Any],
    *,
    recogniser: Recogniser | None = None,
    data: Sequence[Mapping[str, Any]] = (),
    evaluation: Mapping[str, Any] | None = None,
    self_contained: bool = True,
) -> None:
    """Write the folder of an encoder after a run; the same gives the same bytes.

    Args:
        folder: made if it is not there.
        encoder: the network.
        subwords: of its text stream.
        run: all settings.
        recogniser: the CTC head.
        data: what it was trained on, see `mmembed.pretraining.pretrain_data.describe_data`.
        evaluation: its scores, see `mmembed.pretraining.evaluation.evaluate_speech`.
        self_contained: whether the weights of pretrained encoders that were not trained are in the
            folder; else it names them, and they have to be where it is read.
    """
    # What was trained of a pretrained encoder is a part of its weights from now on.
    settings = encoder.config.with_backbones(lambda _, one: replace(one, tuned="nothing"))
    config = {
        "version": __version__,
        "encoder": asdict(settings),
        "backbones": {name: held.config for name, held in encoder.backbones.items()},
        "bases": {} if self_contained else _bases(encoder),
        "run": run,
        "data": list(data),
        "evaluation": evaluation
        and {  # without transcripts, which may not be ours to pass on
            split: {key: held for key, held in scores.items() if key != "samples"}
            for split, scores in evaluation.items()
        },
    }
    write_folder(folder, encoder, subwords, recogniser, config)


def write_folder(
    folder: Path,
    encoder: Encoder | PretrainedEncoder,
    subwords: Vocabulary | TextTokenizer | None,
    recogniser: Recogniser | None,
    config: Mapping[str, Any],
) -> None:
    """Write `FILES`; a folder that held another encoder keeps nothing of it."""
    if any(isinstance(module, LoraLinear) for module in encoder.modules()):
        encoder = copy.deepcopy(encoder)
        merge_lora(encoder)
    weights = _weights(encoder, _elsewhere(config))
    files = {WEIGHTS: weights}
    if subwords is not None:
        name = VOCABULARY if isinstance(subwords, Vocabulary) else TOKENIZER
        files[name] = subwords.to_bytes()
    if recogniser is not None:
        files |= {HEAD: _weights(recogniser), ALPHABET: recogniser.alphabet.to_bytes()}
    sha256 = name_of(encoder, subwords) or hashlib.sha256(weights).hexdigest()
    card = model_card(config, sha256, recogniser is not None)
    files[CARD] = card.encode()
    files[CONFIG] = (dumps(config, indent=1, sort_keys=True) + "\n").encode()
    for name in FILES:
        if name in files:
            with atomic_file(folder / name) as file:
                file.write(files[name])
        else:
            (folder / name).unlink(missing_ok=True)


def _bases(encoder: Encoder) -> dict[str, dict[str, str]]:
    """Name and SHA-256 of the pretrained encoders that were not trained, by stream."""
    configs = {stream: encoder.config.backbone_config(stream) for stream in encoder.backbones}
    return {
        stream: {"name": config.name, "sha256": config.sha256}
        for stream, config in configs.items()
        if config.tuned == "nothing"
    }


def _elsewhere(config: Mapping[str, Any]) -> tuple[str, ...]:
    """How the names of weights begin that are not in the folder."""
    return tuple(f"frontends.{stream}.backbone." for stream in config.get("bases") or {})


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
        backbones = _by_stream(config, "backbones")
        encoder: Encoder | PretrainedEncoder
        if backbones and config.get("encoder") is None:
            encoder = read_module(lambda: PretrainedEncoder(_built(backbones)), folder / WEIGHTS)
        else:
            sizes = from_dict(EncoderConfig, config.get("encoder"), "encoder.")
            bases = _read_bases(config)
            encoder = read_module(
                lambda: Encoder(sizes, {**_built(backbones, bases), **bases}),
                folder / WEIGHTS,
                _elsewhere(config),
            )
        subwords = _subwords(folder, encoder)
        recogniser = None
        if (folder / HEAD).exists() or (folder / ALPHABET).exists():
            alphabet = _vocabulary(folder / ALPHABET)
            width, classes = encoder.frame_width, len(alphabet)
            recogniser = read_module(
                lambda: Recogniser(nn.Linear(width, classes), alphabet), folder / HEAD
            )
        sha256 = name_of(encoder, subwords)
        if not sha256:
            with (folder / WEIGHTS).open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        _check_card(config, sha256)
    except NotADirectoryError:
        raise CorruptError(
            f"{folder}: is a file; name the folder of an encoder, or an encoder on the hub"
        ) from None
    except FileNotFoundError as error:
        raise CorruptError(
            f"{folder}: not an encoder folder, {error.filename} is missing"
        ) from None
    except (ValueError, OSError, MmembedError) as error:
        what = str(error).splitlines()[0].removeprefix(f"{folder}/")
        raise CorruptError(f"{folder}: not a usable encoder folder: {what}") from None
    return Saved(encoder, subwords, recogniser, config, sha256)


def side_by_side(pretrained: Sequence[Pretrained]) -> Saved:
    """Pretrained encoders of one or several streams, untrained by us, as one encoder."""
    found = {one.encoder.stream: one for one in pretrained}
    encoder = PretrainedEncoder({stream: one.encoder for stream, one in found.items()})
    config = {
        "version": __version__,
        "backbones": {stream: one.encoder.config for stream, one in found.items()},
        "pretrained": {s: {"name": x.name, "sha256": x.sha256} for s, x in found.items()},
    }
    subwords = found["text"].tokenizer if "text" in found else None
    return Saved(encoder, subwords, None, config, name_of(encoder, subwords))


def name_of(encoder: nn.Module, subwords: object) -> str:
    """What names pretrained encoders, however they were saved; "" of an encoder of ours.

    Of one stream it is the digest of its encoder, of several a SHA-256 over theirs.
    """
    if not isinstance(encoder, PretrainedEncoder):
        return ""
    tokenizer = subwords if isinstance(subwords, TextTokenizer) else None
    digests = [
        f"{stream} {digest(one, tokenizer if stream == 'text' else None)}"
        for stream, one in encoder.encoders.items()
    ]
    if len(digests) == 1:
        return digests[0].partition(" ")[2]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _by_stream(config: Mapping[str, Any], name: str) -> Mapping[str, Mapping[str, Any]]:
    """An entry of the configuration that says something of streams."""
    found = config.get(name) or {}
    objects = isinstance(found, Mapping) and all(isinstance(x, Mapping) for x in found.values())
    if not objects or not set(found) <= set(STREAMS):
        raise CorruptError(f"{CONFIG}: {name} must be objects by stream, found {shown(found)}")
    return found


def _built(
    configs: Mapping[str, Mapping[str, Any]], but: Collection[str] = ()
) -> dict[str, StreamEncoder]:
    """Pretrained encoders of these settings, without their weights."""
    return {s: build_encoder(config) for s, config in configs.items() if s not in but}


def _read_bases(config: Mapping[str, Any]) -> dict[str, StreamEncoder]:
    """The pretrained encoders that a folder names instead of holding them."""
    bases = {}
    for stream, base in _by_stream(config, "bases").items():
        held = load_pretrained(str(base.get("name")), stream)
        if held.sha256 != base.get("sha256"):
            raise CorruptError(
                f"{CONFIG}: its {stream} encoder is {held.name} of SHA-256 "
                f"{str(base.get('sha256'))[:12]}..., found {held.sha256[:12]}..."
            )
        bases[stream] = held.encoder
    return bases


def _subwords(folder: Path, encoder: Encoder | PretrainedEncoder) -> Any:
    """Of the text stream; refused where it is not that of the encoder."""
    if encoder.backbone("text") is not None:
        check_file(folder / TOKENIZER)
        return TextTokenizer.from_bytes(_bounded(folder / TOKENIZER))
    if isinstance(encoder, PretrainedEncoder):
        return None
    vocabulary, size = _vocabulary(folder / VOCABULARY), encoder.config.vocabulary_size
    if len(vocabulary) != size:
        raise CorruptError(f"{VOCABULARY} has {len(vocabulary)} pieces, {CONFIG} says {size}")
    return vocabulary


def _vocabulary(path: Path) -> Vocabulary:
    return Vocabulary(_bounded(path))


def _bounded(path: Path) -> bytes:
    """What a vocabulary's file holds."""
    check_file(path)
    if path.stat().st_size > MOST_VOCABULARY:
        raise CorruptError(f"{path}: larger than {MOST_VOCABULARY >> 20} MB; it is no vocabulary")
    return path.read_bytes()


def _check_card(config: Mapping[str, Any], sha256: str) -> None:
    """What stands beside the sizes is what a card can be written of, so all else can read it."""
    try:
        model_card(config, sha256, True)
        trained_on(config)
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        what = f"{type(error).__name__}: {error}"
        raise CorruptError(f"{CONFIG}: run, data or evaluation cannot be read ({what})") from None


def _weights(module: nn.Module, elsewhere: tuple[str, ...] = ()) -> bytes:
    tensors = {
        name: value.contiguous().cpu()
        for name, value in module.state_dict().items()
        if not name.startswith(elsewhere)
    }
    data: bytes = save(tensors)
    return data
