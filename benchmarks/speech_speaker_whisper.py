"""Does training on speech and speakers make Whisper better for emotions of unseen people?

    python benchmarks/speech_speaker_whisper.py CORPORA --out runs/speech-speaker-whisper

CORPORA holds the folders cmu_arctic, fsdd, emovo, emodb and ravdess, as for `real_speech.py`. The
encoder of Whisper is trained on speech, on speakers or on both (recipe speech_whisper), without
any emotion label, for equally many steps. A linear probe on the mean and deviation of all its
layers then tells emotions of people who were in no training: RAVDESS actors 01-16, or EMOVO and
EmoDB, which are kept out of pre-training altogether. The frozen encoder gets the same probe on the
same layers, and every difference to it has an interval over speakers. Everything is restartable.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from real_speech import CORPORA, TEST_ACTORS, VARIANTS, mmembed, shards_of

from mmembed.metrics.bootstrap import bootstrap_interval
from mmembed.metrics.classes import unweighted_average_recall
from mmembed.studies.probe import Labelled, cross_predict, read_labelled

MIDDLE = slice(2, 6)  # layers 2 to 5 of Whisper base, the best choice on other speakers
REVERSED = "speech, speaker reversed"
RATES = {"top": 5e-5, "lora": 5e-4}  # peaks; LoRA starts at no change and needs a larger one


@dataclass(frozen=True)
class Test:
    """Who is probed.

    Attributes:
        pretraining: corpora of pre-training; test actors of RAVDESS are never in it.
        share: of their utterances that a run sees, so that both tests have about as many steps.
        folds: probed corpus -> folds of its speakers.
    """

    pretraining: tuple[str, ...]
    share: float
    folds: dict[str, int]


TESTS = {
    "actors": Test(CORPORA, 0.5, {"ravdess": 8}),
    "corpora": Test(("cmu_arctic", "fsdd", "ravdess"), 0.72, {"emovo": 6, "emodb": 10}),
}


@dataclass(frozen=True)
class Settings:
    """What is run.

    Attributes:
        corpora: folder with the five corpora.
        out: folder for everything.
        backbone: folder of Whisper base, or its name on the hub.
        tests: actors = RAVDESS 01-16; corpora = EMOVO and EmoDB, kept out of pre-training.
        tuned: top = the two top blocks, lora = LoRA in all blocks.
        tasks: of pre-training; reversed = the encoder unlearns what the speaker head learns.
        seeds: of pre-training.
        jobs: runs at a time, one thread each.
    """

    corpora: tyro.conf.Positional[Path]
    out: Path = Path("runs/speech-speaker-whisper")
    backbone: str = "openai/whisper-base"
    tests: tuple[Literal["actors", "corpora"], ...] = ("actors", "corpora")
    tuned: tuple[Literal["top", "lora"], ...] = ("top", "lora")
    tasks: tuple[
        Literal["speech + speaker", "speech only", "speaker only", "speech, speaker reversed"], ...
    ] = ("speech + speaker", "speech only", "speaker only", "speech, speaker reversed")
    seeds: tuple[int, ...] = (0, 1, 2)
    jobs: int = 2

    def folder(self, *run: object) -> Path:
        """Of one run: test, what is tuned, tasks, seed."""
        return self.out / "pretrain" / "-".join(map(str, run)).replace(" ", "")


def main() -> None:
    """Prepare, pre-train, extract, probe, tabulate."""
    settings = tyro.cli(Settings, description=__doc__)
    _prepare(settings)
    runs = list(product(settings.seeds, settings.tests, settings.tasks, settings.tuned))
    with ThreadPoolExecutor(settings.jobs) as pool:
        list(pool.map(lambda run: _pretrain_and_extract(settings, *run), runs))
    (settings.out / "tables").mkdir(exist_ok=True)
    for test in settings.tests:
        for corpus in TESTS[test].folds:
            table = "\n".join(_table(settings, test, corpus))
            (settings.out / "tables" / f"{test}-{corpus}.md").write_text(table + "\n")
            print(table, end="\n\n", flush=True)


def _prepare(settings: Settings) -> None:
    """All corpora, and once more what is probed of RAVDESS."""
    data = settings.out / "data"
    options = ("--streams", "audio", "text", "--workers", str(settings.jobs))
    for corpus in CORPORA:
        source, out = str(settings.corpora / corpus), str(data / corpus)
        mmembed("prepare", corpus, source, "--out", out, *options)
    rows = (data / "ravdess" / "manifest.jsonl").read_text().splitlines(keepends=True)
    manifest = data / "ravdess" / "test.jsonl"
    manifest.write_text("".join(r for r in rows if json.loads(r)["speaker"] in TEST_ACTORS))
    mmembed("prepare", "manifest", str(manifest), "--out", str(data / "ravdess-test"), *options)


def _pretrain_and_extract(settings: Settings, seed: int, test: str, tasks: str, tuned: str) -> None:
    folder = settings.folder(test, tuned, tasks, seed)
    reverse = tasks == REVERSED
    speech, speaker = VARIANTS["speech + speaker" if reverse else tasks]
    corpora = TESTS[test].pretraining
    if not (folder / "evaluation.json").exists():
        mmembed(
            "pretrain", "speech_whisper", "--out", str(folder), "--loop.seed", str(seed),
            "--loop.epochs", "1", "--loop.precision", "bf16", "--data.frames", "400",
            "--method.encoder.audio.name", settings.backbone,
            "--method.encoder.audio.tuned", tuned, "--optim.backbone-lr", str(RATES[tuned]),
            "--method.ctc-weight", str(speech), "--method.speaker-weight", str(speaker),
            *(["--method.speaker-gradient=-1"] if reverse else []),
            "--data.exclude-speakers", *TEST_ACTORS,
            "--data.shards", *[str(shards_of(settings.out, corpus)) for corpus in corpora],
            "--data.weights", *[str(TESTS[test].share) for _ in corpora],
        )  # fmt: skip
    for corpus in TESTS[test].folds:
        _extract(settings, corpus, str(folder / "encoder"), folder, "audio backbone")


def _extract(settings: Settings, corpus: str, encoder: str, folder: Path, layers: str) -> None:
    """Layers of Whisper alone, not those that training puts on top."""
    data = shards_of(settings.out, "ravdess-test" if corpus == "ravdess" else corpus)
    mmembed(
        "extract", str(data), "--encoder", encoder, "--out", str(folder / "embeddings" / corpus),
        "--streams", "audio", "--layers", *[f"{layers} {number}" for number in range(7)],
    )  # fmt: skip


def _table(settings: Settings, test: str, corpus: str) -> Iterator[str]:
    """A line for each row: UAR, difference to the frozen encoder, what pre-training learned."""
    frozen = settings.out / "frozen"
    _extract(settings, corpus, settings.backbone, frozen, "audio")
    folds = TESTS[test].folds[corpus]
    data = _embedded(frozen, corpus)
    plain = _predict(frozen, corpus, "all", data, folds)
    shape = len(data.labels), 7, -1
    middle = data.vectors.reshape(shape)[:, MIDDLE].reshape(shape[0], -1)
    rows: dict[str, list[Path]] = {"frozen": [], "frozen, layers 2 to 5": []}
    predicted = {
        "frozen": [plain],
        "frozen, layers 2 to 5": [_predict(frozen, corpus, "middle", _with(data, middle), folds)],
    }
    for tuned, tasks in product(settings.tuned, settings.tasks):
        row = f"{tasks}, {tuned}"
        rows[row] = [settings.folder(test, tuned, tasks, seed) for seed in settings.seeds]
        predicted[row] = [
            _predict(folder, corpus, "all", _embedded(folder, corpus), folds)
            for folder in rows[row]
        ]
    yield f"| {corpus} | UAR | each seed, 95 % interval | minus frozen | CER arctic | speakers |"
    yield "|---|---|---|---|---|---|"
    for row, answers in predicted.items():
        yield f"| {row} | {_scores(data, answers, plain)} | {_speech(rows[row], row)} |"


def _embedded(folder: Path, corpus: str) -> Labelled:
    return read_labelled(folder / "embeddings" / corpus / "audio")


def _with(data: Labelled, vectors: Any) -> Labelled:
    return Labelled(vectors, data.labels, data.groups, data.grouping)


def _predict(folder: Path, corpus: str, layers: str, data: Labelled, folds: int) -> Any:
    """(N,) classes by the probe, computed once."""
    file = folder / f"predicted-{corpus}-{layers}.json"
    if not file.exists():
        file.write_text(json.dumps(cross_predict(data, folds).tolist()))
    return np.array(json.loads(file.read_text()))


def _scores(data: Labelled, answers: Sequence[Any], plain: Any) -> str:
    """UAR over seeds and of each, and the mean difference to the frozen encoder."""

    def uar(predicted: Any, rows: Any) -> float:
        return unweighted_average_recall(data.labels[rows], predicted[rows])

    def difference(rows: Any) -> float:
        return float(np.mean([uar(one, rows) for one in answers])) - uar(plain, rows)

    def interval(statistic: Any) -> Any:
        return bootstrap_interval(statistic, data.groups.tolist(), kind="speaker")

    every = np.arange(len(data.labels))
    uars = [uar(one, every) for one in answers]
    each = []
    for one, score in zip(answers, uars, strict=True):
        between = interval(lambda rows, one=one: uar(one, rows))
        each.append(f"{score:.3f} ({between.low:.3f}-{between.high:.3f})")
    mean = f"{np.mean(uars):.3f}" + (f" +- {np.std(uars):.3f}" if len(uars) > 1 else "")
    between = interval(difference)
    minus = f"{difference(every):+.3f} ({between.low:+.3f} to {between.high:+.3f})"
    if answers[0] is plain:
        minus = "-"
    return f"{mean} | {', '.join(each)} | {minus}"


def _speech(folders: Sequence[Path], row: str) -> str:
    """Means over seeds on held-out utterances; "-" for a task that was not trained."""
    scores = [json.loads((f / "evaluation.json").read_text())["heldout"] for f in folders]
    if not scores:
        return "- | -"
    cer = f"{np.mean([s['by_corpus']['cmu_arctic']['cer'] for s in scores]):.3f}"
    accuracy = f"{np.mean([s['speaker_accuracy'] for s in scores]):.3f}"
    return f"{cer if 'speech' in row else '-'} | {accuracy if 'speaker' in row else '-'}"


if __name__ == "__main__":
    main()
