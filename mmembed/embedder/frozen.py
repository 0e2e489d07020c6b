"""A frozen encoder as a folder holds it: loaded, described, saved, uploaded."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any, Self

import torch

from mmembed import __version__
from mmembed.embedder import hub
from mmembed.embedder.card import trained_on
from mmembed.embedder.clip import parse_streams
from mmembed.embedder.folder import HEAD, Saved, write_folder
from mmembed.embedder.sources import EncoderName, open_encoder
from mmembed.errors import UsageError
from mmembed.features.video import check_face_model
from mmembed.io.versions import made_with
from mmembed.streams import subset_name
from mmembed.training.distributed import decoding_processes


class FrozenEncoder:
    """A frozen encoder with its vocabulary and, in newer folders, its speech recogniser.

    Attributes:
        encoder: in evaluation mode, without gradients.
        subwords: of the text stream; None = the encoder reads no text.
        recogniser: of its folder, reads what the encoder says; None = the folder has none.
        listener: another one, whose recogniser finds words; None = this one's does.
        config: config.json: sizes, and what the encoder was trained with.
        sha256: of the weights file; names the encoder in every shard.
        face_model: YuNet's ONNX file for the faces of clips; None = OpenCV's Haar cascade.
        device: where it computes.
        workers: decoding processes, at most.
    """

    def __init__(
        self,
        saved: Saved,
        device: torch.device | str = "cpu",
        *,
        face_model: Path | None = None,
        listener: Self | None = None,
        workers: int | None = None,
    ) -> None:
        self.device = torch.device(device)
        self.workers = decoding_processes(self.device) if workers is None else workers
        self.encoder, self.recogniser = saved.encoder, saved.recogniser
        for part in filter(None, (self.encoder, self.recogniser)):
            part.to(self.device).eval().requires_grad_(False)
        self.subwords, self.config, self.sha256 = saved.subwords, saved.config, saved.sha256
        self.face_model = face_model
        self.listener = listener

    @classmethod
    def from_pretrained(
        cls,
        name: EncoderName,
        device: torch.device | str = "cpu",
        *,
        revision: str | None = None,
        face_model: Path | str | None = None,
        recogniser: str | os.PathLike[str] | None = None,
        workers: int | None = None,
    ) -> Self:
        """Load an encoder; without any network if it is on this machine.

        Args:
            name: a folder that mmembed wrote, a folder of a pretrained encoder as transformers
                writes it, or where there is none of this name, "OWNER/NAME" of either on the
                Hugging Face hub (needs the extra `hub`). Several pretrained encoders side by side
                are a mapping from stream to name, or "STREAM=NAME" strings: ["audio=A", "text=B"].
            device: where to compute; vectors come back to the CPU.
            revision: branch, tag or commit on the hub.
            face_model: YuNet's ONNX file, where the encoder's training data was prepared with it.
            recogniser: a folder that `mmembed pretrain` wrote, or its name on the hub: it writes
                transcripts and finds words in a clip's audio and video, instead of the encoder.
            workers: processes that decode lists of clips, at most; by default as many as there are
                processors, with a GPU one less.

        Raises:
            CorruptError: a file is missing, damaged, or of another version.
            UsageError: there is no such folder, and nothing of this name to be had from the hub; or
                the folder named as recogniser has none.
        """
        if face_model is not None:
            check_face_model(Path(face_model))
        faces = None if face_model is None else Path(face_model)
        listener = None
        if recogniser is not None:
            listener = cls(open_encoder(recogniser), device)
            if listener.recogniser is None:
                raise UsageError(f"recogniser {os.fspath(recogniser)}: holds no {HEAD}")
        saved = open_encoder(name, revision)
        return cls(saved, device, face_model=faces, listener=listener, workers=workers)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> None:
        """Write an encoder folder with its model card; the same encoder gives the same bytes."""
        write_folder(Path(folder), self.encoder, self.subwords, self.recogniser, self.config)

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

    def streams(self, named: str | None = None) -> tuple[str, ...]:
        """Those of the named streams, or of all, that the encoder reads.

        Raises:
            UsageError: it reads none of them.
        """
        wanted = parse_streams(named)
        read = tuple(stream for stream in wanted if stream in self.encoder.reads)
        if not read or (named is not None and read != wanted):
            reads = " and ".join(self.encoder.reads)
            raise UsageError(f"streams {subset_name(wanted)}: the encoder reads {reads} alone")
        return read

    def tokens(self, text: str) -> list[int]:
        """The token ids of a text stream, none where the encoder reads no text."""
        return [] if self.subwords is None else self.subwords.encode(text)

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
            "width": self.encoder.layer_width,
            "frame_rate": self.encoder.frame_rate,
            "layers": list(self.encoder.layer_names),
        }
