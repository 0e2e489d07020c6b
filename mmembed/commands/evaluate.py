"""Score embeddings by a standard protocol, tell where it leaks, and what holds on unseen speakers.

Examples:
    mmembed evaluate maeb embeddings/emodb/audio other/emodb/audio
    mmembed evaluate maeb ENCODER openai/whisper-base --clips emodb.jsonl --vectors embeddings

Each folder holds embedding shards of one stream subset with category labels. With --clips the names
are encoders, which embed these clips first, as `mmembed extract` does. A protocol whose folds
have the same speakers on both sides measures how well the embeddings tell emotions of known voices;
for each fold the command prints how many speakers of the test part are also in the training part.
The speaker-independent figure (`honest`) of the same clips is always printed beside it. Folders
with the same clips are compared with the first one. What others published of the same corpus stands
below, in lines that begin with "published".
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from mmembed.data.media.fork_server import start_fork_server
from mmembed.errors import UsageError, printable
from mmembed.io.json import write_json
from mmembed.settings.extract import Extract, Granularity
from mmembed.streams import subset_name

if TYPE_CHECKING:
    from mmembed.protocols.evaluate import Evaluation
    from mmembed.protocols.honest import Honest
    from mmembed.protocols.protocol import EmotionProtocol


@dataclass(frozen=True)
class Evaluate:
    """What is evaluated.

    Attributes:
        protocol: `honest` (linear probe on unseen speakers, as `mmembed probe`), `maeb`
            (classification of MTEB: 8 training clips of each class, folds of clips), `emobox` (its
            published folds, a small head on frames; extract with `--granularity utterance frame`)
            or `superb-er` (learned weights of layers, folds of speakers).
        embeddings: Folders of embedding shards, or URLs of such folders (s3://bucket/prefix). With
            --clips: encoders, each a folder or a name on the hub.
        clips: Labelled clips, as `mmembed extract` takes them: manifests or prepared shards.
        vectors: Folder for the embeddings of --clips, in it one for each encoder. The same command
            again makes only what is missing.
        streams: Streams of --clips that are embedded, such as "audio+video"; by default all that a
            clip has.
        folds: Number of folds of speakers of the speaker-independent figure; where there are fewer
            speakers, each of them is a fold.
        folds_file: CSV table of `emobox` with the columns file, emotion and test_folds.
        epochs: Passes over the training clips: of `emobox`, by default 100; of `superb-er`, by
            default as many as make 30,000 steps.
        beside: Prepared shards of precomputed features of the same clips, such as action units, for
            `honest`: the embeddings alone, the features alone and both together are scored, on the
            clips that both have, joined by key.
        seed: Of the heads of `emobox` and `superb-er`.
        out: Also write all results to this file, as JSON.
    """

    protocol: tyro.conf.Positional[Literal["honest", "maeb", "emobox", "superb-er"]]
    embeddings: tyro.conf.Positional[tuple[str, ...]]
    clips: tuple[str, ...] = ()
    vectors: Path | None = None
    streams: str | None = None
    folds: int = 8
    folds_file: Path | None = None
    epochs: int | None = None
    beside: str | None = None
    seed: int = 0
    out: Path | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Print a table with a row for each folder, its leaks and its notes."""
    settings = tyro.cli(Evaluate, prog="mmembed evaluate", args=argv, description=__doc__)
    if not settings.embeddings:
        raise UsageError("name a folder of embeddings")
    if settings.clips:
        start_fork_server()
    if settings.folds < 2:
        raise UsageError(f"--folds {settings.folds}: 2 at least")
    from mmembed.protocols.evaluate import difference
    from mmembed.protocols.honest import Honest
    from mmembed.protocols.published import published_for

    unseen = Honest(settings.folds)
    protocol = _protocol(settings, unseen)
    folders = _folders(settings, protocol)
    print(f"{protocol.name}: {protocol.about}")
    print(
        f"{'embeddings':44} {'accuracy':>8} {'UAR':>6} {'macro F1':>8} {'honest UAR':>10} "
        f"{'95 % interval':>15} {'time':>6}"
    )
    first: Evaluation | None = None
    results: dict[str, Any] = {}
    started = time.monotonic()
    for name, evaluation in _evaluations(settings, folders, protocol, unseen):
        result = evaluation.to_json()
        print(f"{_row(name, evaluation)} {time.monotonic() - started:5.0f}s")
        for fold, leak in zip(evaluation.folds, evaluation.leaks, strict=True):
            print(f"  fold {printable(fold.name)}: {leak}")
        for note in evaluation.notes:
            print(f"  {printable(note)}")
        if first is None:
            first = evaluation
        elif evaluation.honest and first.honest:
            result["difference"] = gap = difference(first, evaluation)
            print(f"  honest UAR {_gap(gap, settings.embeddings[0])}")
        results[name] = result
        print(f"  chance UAR {1 / len({*evaluation.labels}):.3f}", flush=True)
        started = time.monotonic()
    published = published_for(first.keys if first else (), protocol.name)
    for line in (line for one in published for line in one.lines()):
        print(line)
    if settings.out:
        about = {"protocol": protocol.name, "about": protocol.about, "embeddings": results}
        write_json(settings.out, {**about, "published": [one.to_json() for one in published]})


def _evaluations(
    settings: Evaluate, folders: dict[str, str], protocol: EmotionProtocol, unseen: Honest
) -> Iterator[tuple[str, Evaluation]]:
    """What is evaluated and how it did, one after another."""
    from mmembed.protocols.evaluate import evaluate, evaluate_beside
    from mmembed.studies.feature_clips import read_feature_clips

    if settings.beside is None:
        for name, folder in folders.items():
            yield name, evaluate(folder, protocol, unseen)
        return
    features = read_feature_clips(settings.beside)
    for folder in folders.values():
        yield from evaluate_beside(folder, features, settings.beside, unseen).items()


def _folders(settings: Evaluate, protocol: EmotionProtocol) -> dict[str, str]:
    """What is evaluated -> its folder of embedding shards; encoders make theirs."""
    from mmembed.embedder.clip import parse_streams
    from mmembed.embedder.hub import is_hub_name
    from mmembed.embeddings.extract import extract

    if not settings.clips:
        if settings.vectors or settings.streams:
            raise UsageError("--vectors, --streams: go with --clips")
        for name in settings.embeddings:
            here = Path(name)
            if (here / "model.safetensors").is_file() or (is_hub_name(name) and not here.exists()):
                raise UsageError(
                    f"{name}: no folder of embeddings; of an encoder name the clips by --clips and "
                    "a folder for their embeddings by --vectors"
                )
        return {name: name for name in settings.embeddings}
    if settings.vectors is None:
        raise UsageError("--clips: name a folder for their embeddings by --vectors")
    subset = subset_name(parse_streams(settings.streams)) if settings.streams else None
    granularity: tuple[Granularity, ...] = ("utterance",)
    if protocol.part == "frames":
        granularity = ("utterance", "frame")
    folders = {}
    for name in settings.embeddings:
        out = settings.vectors / name.strip("/").replace("/", "-")
        streams = (subset or "all",)
        extract(Extract(settings.clips, (name,), out, streams, granularity))
        folders[name] = str(out / subset if subset else out)
    return folders


def _protocol(settings: Evaluate, unseen: EmotionProtocol) -> EmotionProtocol:
    name, epochs, trained = settings.protocol, settings.epochs, ("emobox", "superb-er")
    if settings.folds_file is not None and name != "emobox":
        raise UsageError(f"--folds-file: {name} makes its own folds; emobox has given ones")
    if epochs is not None and (epochs < 1 or name not in trained):
        raise UsageError(f"--epochs {epochs}: 1 at least, and of {' and '.join(trained)} alone")
    if settings.beside is not None and name != "honest":
        raise UsageError(f"--beside: goes with honest, not with {name}")
    if name == "emobox":
        from mmembed.protocols import emobox

        if settings.folds_file is None:
            raise UsageError("emobox needs --folds-file FILE, the table of its folds")
        return emobox.EmoBox(settings.folds_file, epochs or emobox.EPOCHS, settings.seed)
    if name == "superb-er":
        from mmembed.protocols.superb_er import SuperbEr

        return SuperbEr(epochs, settings.seed)
    if name == "maeb":
        from mmembed.protocols.maeb import Maeb

        return Maeb()
    return unseen


def _row(folder: str, evaluation: Evaluation) -> str:
    scores, unseen = evaluation.scores, evaluation.honest
    figure, between = "-", "-"
    if unseen:
        figure = f"{unseen.result['uar']:.3f}"
        if unseen.result["low"] is not None:
            between = f"{unseen.result['low']:.3f}-{unseen.result['high']:.3f}"
    return (
        f"{printable(folder)[-44:]:44} {scores['accuracy']:8.3f} {scores['uar']:6.3f} "
        f"{scores['macro_f1']:8.3f} {figure:>10} {between:>15}"
    )


def _gap(gap: dict[str, Any] | None, first: str) -> str:
    if gap is None:
        return f"is not compared with {printable(first)}: other clips or classes"
    between = f", 95 % interval {gap['low']:+.3f} to {gap['high']:+.3f}"
    known = between if gap["low"] is not None else f", {gap['note']}"
    return f"less that of {printable(first)}: {gap['mean']:+.3f}{known}"
