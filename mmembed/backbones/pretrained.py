"""Pretrained encoders by folder or by name on the hub, and the same modules from their settings.

Weights are read from safetensors only and no code that came with a model is run. A folder is read
without any network. The library transformers is the extra `backbones`, and is imported when needed.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import torch

from mmembed.backbones.picture import PictureEncoder
from mmembed.backbones.stream import StreamEncoder
from mmembed.backbones.text import TextEncoder, TextTokenizer
from mmembed.backbones.wav2vec2 import Wav2Vec2Stream, WavLMStream
from mmembed.backbones.whisper import WhisperStream
from mmembed.errors import UsageError, printable
from mmembed.io.json import dumps


@dataclass(frozen=True)
class Architecture:
    """What stands for a model type of transformers.

    Attributes:
        encoder: our class.
        module: the class of transformers that it wraps, below `transformers.models`.
        renamed: pattern -> replacement for names of weights in files, where the module is a part of
            what the files hold and transformers does not find it by itself.
    """

    encoder: type[StreamEncoder]
    module: str
    renamed: Mapping[str, str] = field(default_factory=dict)


ARCHITECTURES: Final[Mapping[str, Architecture]] = {
    "whisper": Architecture(
        WhisperStream, "whisper.modeling_whisper.WhisperEncoder", {r"^(model\.)?encoder\.": ""}
    ),
    "wav2vec2": Architecture(Wav2Vec2Stream, "wav2vec2.modeling_wav2vec2.Wav2Vec2Model"),
    "hubert": Architecture(Wav2Vec2Stream, "hubert.modeling_hubert.HubertModel"),
    "data2vec-audio": Architecture(
        Wav2Vec2Stream, "data2vec.modeling_data2vec_audio.Data2VecAudioModel"
    ),
    "wavlm": Architecture(WavLMStream, "wavlm.modeling_wavlm.WavLMModel"),
    "vit": Architecture(PictureEncoder, "vit.modeling_vit.ViTModel"),
    "dinov2": Architecture(PictureEncoder, "dinov2.modeling_dinov2.Dinov2Model"),
    "dinov2_with_registers": Architecture(
        PictureEncoder,
        "dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel",
    ),
    **dict.fromkeys(
        ("clip", "clip_vision_model"),
        Architecture(PictureEncoder, "clip.modeling_clip.CLIPVisionModel"),
    ),
    **dict.fromkeys(
        ("siglip", "siglip_vision_model"),
        Architecture(PictureEncoder, "siglip.modeling_siglip.SiglipVisionModel"),
    ),
    "bert": Architecture(TextEncoder, "bert.modeling_bert.BertModel"),
    "distilbert": Architecture(TextEncoder, "distilbert.modeling_distilbert.DistilBertModel"),
    "roberta": Architecture(TextEncoder, "roberta.modeling_roberta.RobertaModel"),
    "xlm-roberta": Architecture(TextEncoder, "xlm_roberta.modeling_xlm_roberta.XLMRobertaModel"),
    "mpnet": Architecture(TextEncoder, "mpnet.modeling_mpnet.MPNetModel"),
}

MOST_LAYERS: Final = 1000

# Settings of heads, of decoders and of training, which the encoder's output does not depend on; the
# sizes of tables are seen in the weights.
NOT_OF_THE_ENCODER: Final = re.compile(
    "decoder|codevector|classifier|xvector|tdnn|ctc_|mask_|suppress|use_cache|vocab_size|_id$|_ids$"
)


@dataclass(frozen=True)
class Pretrained:
    """A pretrained encoder.

    Attributes:
        encoder: in evaluation mode, in float32.
        tokenizer: of a text encoder, else None.
        name: the folder or the name on the hub that it was loaded by.
        sha256: of the weights in use, the settings and the tokenizer; see `digest`.
    """

    encoder: StreamEncoder
    tokenizer: TextTokenizer | None
    name: str
    sha256: str


def load_pretrained(
    name: str,
    stream: str | None = None,
    *,
    revision: str | None = None,
    masked_language: bool = False,
) -> Pretrained:
    """A pretrained encoder with its tokenizer.

    Args:
        name: a folder, or a name on the hub.
        stream: what it has to encode, one of `mmembed.streams.STREAMS`; None: whatever it does.
        revision: of the hub's repository, a commit, a tag or a branch.
        masked_language: a text encoder with its masked-language head.

    Raises:
        UsageError: transformers is not installed, there is no such model, it is none that we know,
            it is of another stream, or its files do not hold what it needs.
    """
    transformers = _transformers(name)
    local = _is_local(name)
    if local and not any(Path(name).glob("*.safetensors")):
        raise UsageError(f"{name}: holds no *.safetensors, and weights are read from nothing else")
    given = {"local_files_only": local, "trust_remote_code": False, "revision": revision}
    with _reasons(name), _quiet(transformers):
        settings, _ = transformers.PreTrainedConfig.get_config_dict(name, **given)
        architecture = _architecture(name, settings)
        encodes = architecture.encoder.stream
        if stream not in (None, encodes):
            raise UsageError(f"{name}: {settings['model_type']} encodes {encodes}, not {stream}")
        module = transformers.AutoModelForMaskedLM if masked_language else _module(architecture)
        model, report = module.from_pretrained(
            name,
            use_safetensors=True,
            dtype=torch.float32,
            key_mapping=dict(architecture.renamed) or None,
            output_loading_info=True,
            **given,
        )
        model.config.preprocessing = _preprocessing(transformers, name, architecture, given)
        encoder, tokenizer = architecture.encoder(model).eval(), None
        if isinstance(encoder, TextEncoder):
            theirs = transformers.AutoTokenizer.from_pretrained(name, **given)
            tokenizer = TextTokenizer.of(theirs, encoder.positions)
            if len(tokenizer) > encoder.words.num_embeddings:
                raise UsageError(
                    f"{name}: its tokenizer has {len(tokenizer)} tokens, and it has vectors for "
                    f"{encoder.words.num_embeddings}"
                )
    read = model if masked_language else encoder.model
    missing = sorted({*report["missing_keys"]} & {*read.state_dict()})
    if missing:
        raise UsageError(
            f"{name}: its files lack {len(missing)} weights of {settings['model_type']}, such as "
            f"{printable(missing[0])}"
        )
    return Pretrained(encoder, tokenizer, name, digest(encoder, tokenizer))


def recogniser_letters(name: str) -> list[str]:
    """The letters that a pretrained recogniser writes, such as wav2vec2 fine-tuned with CTC.

    Args:
        name: a folder, or a name on the hub.

    Raises:
        UsageError: there is no such recogniser, or it writes parts of words instead of letters.
    """
    transformers, local = _transformers(name), _is_local(name)
    with _reasons(name), _quiet(transformers):
        given = {"local_files_only": local, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **given)
        special = {*tokenizer.all_special_tokens, getattr(tokenizer, "word_delimiter_token", "|")}
        tokens = sorted({*map(str, tokenizer.get_vocab())} - special)
    if parts := [token for token in tokens if len(token) > 1]:
        raise UsageError(f"{name}: it writes parts of words such as {printable(parts[0])}")
    return tokens


def build_encoder(config: Mapping[str, Any]) -> StreamEncoder:
    """The module that `StreamEncoder.config` describes, with random weights, in evaluation mode.

    Raises:
        UsageError: transformers is not installed, or these are no settings of an encoder we know.
    """
    name = "config.json"
    _transformers(name)
    _check_depth(name, config)
    architecture = _architecture(name, config)
    with _reasons(name):
        module = _module(architecture)
        return architecture.encoder(module(module.config_class.from_dict(dict(config)))).eval()


def _check_depth(name: str, config: Mapping[str, Any]) -> None:
    """Refuse settings of more blocks than any model has: building them would never end."""
    for setting, value in config.items():
        if "layers" in setting and isinstance(value, int) and value > MOST_LAYERS:
            raise UsageError(f"{name}: {printable(setting[:50])} is {value}, above {MOST_LAYERS}")


def digest(encoder: StreamEncoder, tokenizer: TextTokenizer | None = None) -> str:
    """SHA-256 that names an encoder, however its files are laid out.

    It is over the name, type, shape and bytes of each weight in use, in the order of their names,
    over those settings of the encoder that are not the defaults of its architecture, and over the
    tokenizer.
    """
    total = hashlib.sha256()
    for name, weight in sorted(encoder.model.state_dict().items()):
        total.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        total.update(weight.cpu().contiguous().flatten().view(torch.uint8).numpy())
    defaults = type(encoder.model.config)().to_dict()
    settings = {
        name: value
        for name, value in encoder.config.items()
        if value != defaults.get(name) and not NOT_OF_THE_ENCODER.search(name)
    }
    settings["model_type"] = encoder.config["model_type"]
    total.update(dumps(settings, sort_keys=True).encode())
    if tokenizer is not None:
        total.update(tokenizer.to_bytes())
    return total.hexdigest()


def _is_local(name: str) -> bool:
    """Whether it is a folder, else a name on the hub."""
    local = Path(name).is_dir()
    if not local and (name.startswith(("/", ".", "~")) or name.count("/") > 1):
        raise UsageError(f"{name}: there is no such folder")
    return local


def _transformers(name: str) -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise UsageError(f"{name}: needs pip install 'mmembed[backbones]' ({error})") from None


def _architecture(name: str, settings: Mapping[str, Any]) -> Architecture:
    kind = str(settings.get("model_type"))
    if kind not in ARCHITECTURES:
        raise UsageError(
            f"{name}: model type {printable(kind[:50])} is none of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[kind]


def _module(architecture: Architecture) -> Any:
    path, name = architecture.module.rsplit(".", 1)
    return getattr(importlib.import_module(f"transformers.models.{path}"), name)


def _preprocessing(
    transformers: Any, name: str, architecture: Architecture, given: Mapping[str, Any]
) -> dict[str, Any]:
    """What the encoder reads of `preprocessor_config.json`, where there is such a file."""
    wanted = architecture.encoder.preprocessing
    if not wanted:
        return {}
    try:
        reader = transformers.feature_extraction_utils.FeatureExtractionMixin
        found, _ = reader.get_feature_extractor_dict(name, **given)
    except OSError:
        return {}
    return {setting: found[setting] for setting in wanted if setting in found}


@contextlib.contextmanager
def _reasons(name: str) -> Iterator[None]:
    """Files may be anybody's, and the library checks few of them: one line says what it said."""
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        raise UsageError(f"{name}: not an encoder we can load: {reason[:500]}") from None


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No bar for weights, which load in an instant, and no table of those that are not used."""
    logging = transformers.utils.logging
    before = logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
