"""All that the page can be given, made up: an encoder, regressors, embeddings of hostile clips."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from helpers.clips import burst, grey_steps, tone, write_video
from helpers.encoders import write_encoder
from helpers.prepared import example, write_prepared
from mmembed_export.extract import main as extract
from safetensors.torch import save_file

from mmembed.embedder import Embedder
from mmembed.embeddings.search import EmbeddingSearch
from mmembed.methods.emotion import EmotionRegressor
from mmembed.serve.analysis import Analyser
from mmembed.settings.methods import EmotionConfig
from mmembed.studies.emotion_predictor import EmotionPredictor

HOSTILE = "<img src=x onerror=\"document.title='taken'\">\u202e&amp;<b>bold"
CLIPS = 5


def write_served(folder: Path) -> Path:
    """encoder, emotion (regressors of sound, pictures, and both), near/audio+video, clip.mp4 of
    1.2 s, sound.m4a of 0.6 s, bad.mp4."""
    encoder = write_encoder(folder / "encoder")
    write_regressors(folder / "emotion", ["audio", "video", "audio+video"])
    known = {"transcript": HOSTILE, "speaker": HOSTILE}
    shards = write_prepared(folder / "corpus", [example(n, **known) for n in range(CLIPS)])
    extract(
        [str(shards / "shards"), "--encoder", str(encoder), "--out", str(folder / "near"),
         "--streams", "audio+video", "text"]
    )  # fmt: skip
    write_video(folder / "clip.mp4", grey_steps(range(30, 150, 4)), np.arange(30) / 25, tone(1.2))
    write_video(folder / "sound.m4a", sound=burst(0.6, 0.2))
    (folder / "bad.mp4").write_bytes(b"nothing of the kind")
    return folder


def write_regressors(folder: Path, subsets: Sequence[str], layers: int = 10) -> None:
    """As `mmembed finetune emotion` leaves two seeds that have learned nothing."""
    config = EmotionConfig(layers=layers, width=64, hidden=8)
    for subset in subsets:
        (folder / subset).mkdir(parents=True)
        for seed in range(2):
            torch.manual_seed(seed)
            save_file(
                EmotionRegressor(config).state_dict(), folder / subset / f"seed-{seed}.safetensors"
            )
    settings = {"name": "emotion", "method": asdict(config), "loop": {"seeds": [0, 1]}}
    (folder / "run.json").write_text(json.dumps(settings))


def open_served(folder: Path) -> Analyser:
    """With everything that `write_served` wrote."""
    embedder = Embedder.from_pretrained(folder / "encoder")
    predictor = EmotionPredictor.from_folder(embedder, folder / "emotion")
    search = EmbeddingSearch.open(folder / "near" / "audio+video")
    return Analyser(embedder, predictor, search)
