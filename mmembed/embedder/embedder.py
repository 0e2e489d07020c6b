"""From clips to vectors, by a frozen encoder."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, overload

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from mmembed import __version__
from mmembed.batch import STREAMS, Encoding, Packed, Padded
from mmembed.config import Hz, Seconds
from mmembed.data.example import Example
from mmembed.data.inputs import load_all
from mmembed.data.item import collate, to_item
from mmembed.data.media.decode import MAX_SECONDS
from mmembed.data.media.pool import Decoder
from mmembed.embedder import hub
from mmembed.embedder.card import trained_on
from mmembed.embedder.clip import Described, as_clip, parse_streams, usable
from mmembed.embedder.embedding import Array, Embedding, Word
from mmembed.embedder.folder import FILES, HEAD, Saved, read_folder, write_folder
from mmembed.embedder.recogniser import Recogniser
from mmembed.embedder.windows import (
    Encoded,
    Placed,
    batches,
    encode_windows,
    is_long,
    place,
    plan,
    spread,
)
from mmembed.encoder import FRAME_RATE, EncoderOutput
from mmembed.errors import UsageError
from mmembed.features.text import normalise_transcript
from mmembed.features.video import check_face_model
from mmembed.io.versions import made_with
from mmembed.nn.transformer import mean_and_std

CLIPS_AT_ONCE: Final = 8  # in a batch; changes no vector
Origin = Literal["given", "ctc"]
_NO_RECOGNISER: Final = (
    f"the encoder folder holds no {HEAD}; folders that `mmembed pretrain` writes now do"
)


class Embedder:
    """A frozen encoder with its vocabulary and, in newer folders, its speech recogniser.

    Attributes:
        encoder: in evaluation mode, without gradients.
        vocabulary: of the text stream.
        recogniser: writes transcripts and finds words, or None.
        config: config.json: sizes, and what the encoder was trained with.
        sha256: of the weights file; names the encoder in every shard.
        face_model: YuNet's ONNX file for the faces of clips; None = OpenCV's Haar cascade.
    """

    def __init__(
        self,
        saved: Saved,
        device: torch.device | str = "cpu",
        *,
        face_model: Path | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.encoder = saved.encoder.to(self.device).eval().requires_grad_(False)
        self.recogniser = saved.recogniser
        if self.recogniser is not None:
            self.recogniser.to(self.device).eval().requires_grad_(False)
        self.vocabulary = saved.vocabulary
        self.config = saved.config
        self.sha256 = saved.sha256
        self.face_model = face_model

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
        face_model: Path | str | None = None,
    ) -> Embedder:
        """Load an encoder folder; without any network if it is on this machine.

        Args:
            name: a folder, or where there is none of this name, "OWNER/NAME" on the Hugging Face
                hub (needs the extra `hub`).
            device: where to compute; vectors come back to the CPU.
            revision: branch, tag or commit on the hub.
            face_model: YuNet's ONNX file, where the encoder's training data was prepared with it.

        Raises:
            CorruptError: a file is missing, damaged, or of another version.
            UsageError: there is no such folder, and nothing of this name to be had from the hub.
        """
        folder = Path(name)
        if face_model is not None:
            check_face_model(Path(face_model))
        if isinstance(name, str) and not folder.exists():
            if not hub.is_hub_name(name):
                raise UsageError(
                    f"{name}: there is no such folder (a name on the hub is OWNER/NAME)"
                )
            folder = hub.download(name, revision, FILES)
        elif revision is not None:
            raise UsageError(f"{name}: a folder has no revisions, found {revision!r}")
        faces = None if face_model is None else Path(face_model)
        return cls(read_folder(folder), device, face_model=faces)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an encoder folder with its model card; the same encoder gives the same bytes."""
        write_folder(Path(folder), self.encoder, self.vocabulary, self.recogniser, self.config)

    def push_to_hub(self, name: str) -> str:
        """Make the repository "OWNER/NAME" on the Hugging Face hub hold what `save_pretrained`
        writes and nothing else; where there is no such repository yet, a private one is made.

        config.json goes along, and in it the paths of the training data as they were given.

        Returns:
            The address of the commit.

        Raises:
            UsageError: the extra `hub` is not installed, or the hub does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            return hub.upload(name, Path(folder))

    @property
    def trained_on(self) -> str:
        """What the encoder was trained on, in one line; "not recorded" where nothing tells."""
        return trained_on(self.config)

    @property
    def description(self) -> dict[str, Any]:
        """What a reader of the vectors has to know of them."""
        return {
            "encoder_sha256": self.sha256,
            "version": __version__,
            "made_with": made_with(),
            "width": self.encoder.config.width,
            "frame_rate": FRAME_RATE,
            "layers": list(self.encoder.layer_names),
        }

    def hidden(self, examples: Sequence[Example]) -> EncoderOutput:
        """The outputs of all layers for examples, each with at least one stream."""
        items = [to_item(example, self.vocabulary) for example in examples]
        return self.encoder.encode(collate(items).to(self.device).inputs)

    @torch.no_grad()
    def encode(self, examples: Sequence[Example]) -> Encoding:
        """Embed examples in one batch, each with at least one stream; the result is on the CPU.

        Long recordings are encoded by windows, see `mmembed.embedder.windows`. `frames` is padded
        to the longest: give them one by one.
        """
        if not any(map(is_long, examples)):
            return self.encoder.pool(self.hidden(examples)).to("cpu")
        encoded = self._encode(examples)
        frames = [each.frames for each in encoded]
        lengths = torch.tensor([len(each) for each in frames])
        layers = torch.stack([each.layers for each in encoded])
        return Encoding(
            frames=Padded(frames[0][None], lengths) if len(frames) == 1 else Padded.stack(frames),
            pooled=layers[:, -1],
            layers=layers,
            streams=torch.tensor([[name in e.streams for name in STREAMS] for e in examples]),
            frame_rate=FRAME_RATE,
        )

    @overload
    def __call__(
        self,
        clips: Described | None = None,
        *,
        audio: ArrayLike | None = None,
        sample_rate: Hz | None = None,
        video: ArrayLike | None = None,
        text: str | None = None,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Embedding: ...

    @overload
    def __call__(
        self,
        clips: list[Described] | tuple[Described, ...],
        *,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
        max_seconds: Seconds = MAX_SECONDS,
    ) -> list[Embedding]: ...

    def __call__(
        self,
        clips: Described | list[Described] | tuple[Described, ...] | None = None,
        *,
        audio: ArrayLike | None = None,
        sample_rate: Hz | None = None,
        video: ArrayLike | None = None,
        text: str | None = None,
        streams: str | None = None,
        transcribe: bool = False,
        tensors: bool = False,
        max_seconds: Seconds = MAX_SECONDS,
    ) -> Embedding | list[Embedding]:
        """Embed one clip or several; whatever else is in the list changes no vector.

        Files are opened in a process of their own, as `mmembed extract` does.

        Args:
            clips: the path of a sound or video file, or a dict with fields of
                `mmembed.embedder.clip.Clip`; or a list of those.
            audio: (samples,) mono in [-1, 1], of one clip in memory.
            sample_rate: of `audio`, Hz.
            video: (T, height, width) grey or (T, height, width, 3) RGB, uint8, at 25 Hz.
            text: the words spoken, beside a path as well.
            streams: those to use, such as "audio+video"; None = all that a clip has. Words that
                are known and not used are still found in the clip.
            transcribe: where words are not known, let the recogniser write them. They are used as
                the text stream only where `streams` names text.
            tensors: tensors instead of numpy arrays.
            max_seconds: the most that a file may last, by default four hours.

        Raises:
            DataError: a clip cannot be used.
            UsageError: the call contradicts itself, or the folder has no recogniser.
        """
        wanted = parse_streams(streams)
        if transcribe and self.recogniser is None:
            raise UsageError(f"transcribe: {_NO_RECOGNISER}")
        given = {"audio": audio, "sample_rate": sample_rate, "video": video, "text": text}
        given = {field: value for field, value in given.items() if value is not None}
        if isinstance(clips, list | tuple):
            if given:
                raise UsageError(f"{', '.join(given)}: of several clips, each has its own")
            described = [as_clip(clip, f"clip-{number}") for number, clip in enumerate(clips)]
        else:
            clip = as_clip({} if clips is None else clips, "clip")
            described = [replace(clip, **given)]  # type: ignore[arg-type]
        sources = [clip.source(wanted, self.face_model, max_seconds) for clip in described]
        feed = streams is not None and "text" in wanted
        found: list[Embedding] = []
        with Decoder() as decoder:
            examples = usable(sources, load_all(sources, decoder), wanted)
            for batch in batches(examples, CLIPS_AT_ONCE):
                found += self.embed(batch, transcribe=transcribe, feed=feed, tensors=tensors)
        return found if isinstance(clips, list | tuple) else found[0]

    @torch.no_grad()
    def embed(
        self,
        examples: Sequence[Example],
        *,
        words: bool = True,
        transcribe: bool = False,
        feed: bool = False,
        tensors: bool = False,
    ) -> list[Embedding]:
        """Embed examples in one batch, in their order, each with at least one stream.

        Args:
            examples: decoded clips.
            words: whether those that are known are to be found in the clips.
            transcribe: as in `__call__`; needs a recogniser.
            feed: such transcripts become the text stream.
            tensors: as in `__call__`.
        """
        known = [normalise_transcript(e.utterance.transcript or "") or None for e in examples]
        origins: list[Origin | None] = ["given" if words else None for words in known]
        recogniser = self.recogniser
        listen = recogniser is not None and (transcribe or (words and any(known)))
        encoded = self._encode(examples, listen)
        if transcribe and recogniser is not None:
            placed: list[list[Placed] | None] = [None] * len(examples)
            for row, (example, each) in enumerate(zip(examples, encoded, strict=True)):
                if known[row] is None and each.log_probs is not None and _perceived(example):
                    known[row], origins[row] = recogniser.transcribe(each.log_probs), "ctc"
                    if feed and is_long(example):
                        placed[row] = place(known[row] or "", each.log_probs, recogniser)
            if feed:
                examples = [
                    replace(example, text=words or None) if origin == "ctc" else example
                    for example, words, origin in zip(examples, known, origins, strict=True)
                ]
                encoded = self._encode(examples, listen, placed)
        made = []
        for row, (example, each) in enumerate(zip(examples, encoded, strict=True)):
            times = (torch.arange(len(each.frames)) + 0.5) / FRAME_RATE
            seconds = example.notes.get("seconds")
            aligned = self._words(example, known[row], each.log_probs, each.frames)

            def array(tensor: Tensor) -> Array:
                return tensor if tensors else tensor.numpy()

            made.append(
                Embedding(
                    key=example.key,
                    streams=example.streams,
                    seconds=seconds if isinstance(seconds, float) else None,
                    pooled=array(each.layers[-1].clone()),
                    frames=array(each.frames),
                    times=array(times if _perceived(example) else times * torch.nan),
                    layers=array(each.layers),
                    layer_names=self.encoder.layer_names,
                    transcript=known[row],
                    transcript_from=origins[row],
                    aligned=aligned
                    if isinstance(aligned, str)
                    else tuple(word._replace(vector=array(word.vector)) for word in aligned),
                )
            )
        return made

    def _encode(
        self,
        examples: Sequence[Example],
        listen: bool = False,
        placed: Sequence[list[Placed] | None] | None = None,
    ) -> list[Encoded]:
        """Clips as one batch, each long recording by windows.

        Args:
            examples: each with at least one stream.
            listen: whether log-probabilities of the letters are wanted.
            placed: the words of long recordings whose times are known.
        """
        ears = self.recogniser if listen else None
        clips = [example for example in examples if not is_long(example)]
        encoded = iter(self._encode_clips(clips, ears) if clips else [])
        found = []
        for example, words in zip(examples, placed or [None] * len(examples), strict=True):
            if not is_long(example):
                found.append(next(encoded))
                continue
            windows = plan(example)
            if words is None:
                words = spread(example.text or "", windows[-1].core.stop)
            found.append(
                encode_windows(
                    example,
                    windows,
                    words,
                    lambda part: self.hidden([part]),
                    self.vocabulary,
                    ears,
                )
            )
        return found

    def _encode_clips(self, clips: Sequence[Example], ears: Recogniser | None) -> list[Encoded]:
        hidden = self.hidden(clips)
        heard = [None] * len(clips) if ears is None else ears(hidden.audio_visual).split()
        encoding = self.encoder.pool(hidden).to("cpu")
        return [
            Encoded(
                encoding.frames.item(row).float().clone(), encoding.layers[row].clone(), log_probs
            )
            for row, log_probs in enumerate(heard)
        ]

    def _words(
        self, example: Example, transcript: str | None, log_probs: Tensor | None, frames: Tensor
    ) -> list[Word] | str:
        """The words of a clip with their times and vectors, or why there are none."""
        if not _perceived(example):
            return "no times of words: there are neither sound nor pictures"
        if self.recogniser is None:
            return f"no times of words: {_NO_RECOGNISER}"
        if transcript is None or log_probs is None:
            return "its words are not known: give text, or transcribe=True"
        try:
            spoken = self.recogniser.find_words(log_probs.cpu().numpy(), transcript)
        except ValueError as error:
            return f"no times of words: {error}"
        if not spoken:
            return []
        steps = [frames[word.frames.start : word.frames.stop] for word in spoken]
        lengths = torch.tensor([len(part) for part in steps])
        vectors = mean_and_std(Packed(torch.cat(steps), lengths))
        return [
            Word(word.text, word.start, word.end, vector)
            for word, vector in zip(spoken, vectors, strict=True)
        ]


def _perceived(example: Example) -> bool:
    """Whether there is something to hear or to see."""
    return bool({"audio", "video"} & set(example.streams))
