"""Check manifests, prepared folders and embeddings, and list every defect.

mmembed verify data/ravdess embeddings/ravdess

Of shards every byte is compared with its checksum and every record with its index; of a manifest
every row is checked, and the media it names are looked at. Exits 0 where all is well, 5 where
something is damaged, 4 where it is whole but cannot be used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from mmembed.commands.progress import progress
from mmembed.data.locations import Location, find_places
from mmembed.data.verify.manifest import verify_manifest
from mmembed.data.verify.shards import Known, Verdict, verify_shards
from mmembed.errors import CorruptError, DataError, UsageError, printable

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Verify:
    """What is checked.

    Attributes:
        paths: manifests (.jsonl), prepared folders, folders of shards or of embeddings. Folders
            given together must not share a key.
        decode: also decode the media that a manifest names, which takes long.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    decode: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each place and one for each defect."""
    settings = tyro.cli(Verify, prog="mmembed verify", args=argv, description=__doc__)
    if not settings.paths:
        raise UsageError("nothing to verify; name manifests, prepared folders or embeddings")
    found = [place for path in settings.paths for place in find_places(path)]
    places = list({place.path.resolve(): place for place in found}.values())
    known: Known = {}
    verdicts = []
    for place in places:
        verdict = _verify(place, known, settings.decode)
        _print(verdict)
        verdicts.append(verdict)
    defects = sum(verdict.harmful for verdict in verdicts)
    worst = max(verdicts, key=lambda verdict: verdict.exit_code)
    message = f"{defects} defects, see above"
    if worst.exit_code == CorruptError.exit_code:
        raise CorruptError(f"{worst.place.path}: damaged; {message}")
    if worst.exit_code:
        raise DataError(str(worst.place.path), "invalid", message)


def _verify(place: Location, known: Known, decode: bool) -> Verdict:
    with progress("verify %", 100) as update:

        def show(done: int, of: int) -> None:
            update(100 * done // max(1, of))

        if place.is_manifest:
            return verify_manifest(place, decode=decode, on_progress=show)
        return verify_shards(place, known, show)


def _print(verdict: Verdict) -> None:
    state = {0: "ok", DataError.exit_code: "invalid"}.get(verdict.exit_code, "damaged")
    print(printable(f"{state:8} {verdict.place.path}: {_described(verdict)}"))
    for defect in verdict.defects:
        print(printable(f"  {defect.reason}: {defect.item}: {defect.message}"))
    hidden = verdict.counts.total() - len(verdict.defects)
    if hidden:
        by_reason = ", ".join(
            f"{count} {reason}" for (reason, _), count in verdict.counts.most_common()
        )
        print(f"  and {hidden} more; of all defects {by_reason}", flush=True)


def _described(verdict: Verdict) -> str:
    if verdict.place.is_manifest:
        parts = [f"{verdict.records:,} rows"]
        if verdict.unchecked:
            parts.append(
                f"the media of {verdict.unchecked:,} are remote or in archives: not looked at"
            )
    else:
        parts = [
            f"{verdict.records:,} records in {verdict.parts:,} shards",
            f"{verdict.failures:,} failed",
            f"{verdict.size / MEGABYTE:,.1f} MB",
        ]
    if verdict.harmful:
        parts.append(f"{verdict.harmful:,} defects")
    return ", ".join(parts)
