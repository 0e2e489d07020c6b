"""Check manifests, prepared folders and embeddings, and list every defect.

Example:
    mmembed verify data/ravdess embeddings/ravdess

Every byte of a shard is compared with its checksum, and every record with its index. Every row of a
manifest is checked, and the first bytes of its media are read. The exit code is 0 if no defect was
found, 5 if something is damaged, 4 if it is complete but cannot be used as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from mmembed.errors import CorruptError, DataError, UsageError, printable
from mmembed.io.progress import progress

if TYPE_CHECKING:
    from mmembed.data.locations import Location
    from mmembed.data.verify.defect import VerifyResult
    from mmembed.data.verify.shards import Known

MEGABYTE = 1_000_000


@dataclass(frozen=True)
class Verify:
    """What is checked.

    Attributes:
        paths: Manifests (.jsonl), prepared folders, folders of shards or of embeddings. Folders
            that are given together must not share a key.
        decode: Also decode the media of manifests, which takes long.
    """

    paths: tyro.conf.Positional[tuple[Path, ...]]
    decode: bool = False


def main(argv: Sequence[str] | None = None) -> None:
    """Print a line for each location and one for each defect."""
    settings = tyro.cli(Verify, prog="mmembed verify", args=argv, description=__doc__)
    from mmembed.data.locations import find_locations

    if not settings.paths:
        raise UsageError("nothing to verify; name manifests, prepared folders or embeddings")
    found = [location for path in settings.paths for location in find_locations(path)]
    locations = {location.path.resolve(): location for location in found}.values()
    known: Known = {}
    results = []
    for location in locations:
        results.append(_verify(location, known, settings.decode))
        _print(results[-1])
    worst = max(results, key=lambda result: result.exit_code)
    message = f"{sum(result.num_errors for result in results)} defects, see above"
    if worst.exit_code == CorruptError.exit_code:
        raise CorruptError(f"{worst.location.path}: damaged; {message}")
    if worst.exit_code:
        raise DataError(str(worst.location.path), "invalid", message)


def _verify(location: Location, known: Known, decode: bool) -> VerifyResult:
    from mmembed.data.verify.manifest import verify_manifest
    from mmembed.data.verify.shards import verify_shards

    with progress("verify %", 100) as update:

        def show(done: int, of: int) -> None:
            update(100 * done // max(1, of))

        if location.is_manifest:
            return verify_manifest(location, decode=decode, on_progress=show)
        return verify_shards(location, known, show)


def _print(result: VerifyResult) -> None:
    state = {0: "ok", DataError.exit_code: "invalid"}.get(result.exit_code, "damaged")
    print(printable(f"{state:8} {result.location.path}: {_described(result)}"))
    for defect in result.defects:
        print(printable(f"  {defect.reason}: {defect.item}: {defect.message}"))
    hidden = result.counts.total() - len(result.defects)
    if hidden:
        by_reason = ", ".join(
            f"{count} {reason}" for (reason, _), count in result.counts.most_common()
        )
        print(f"  and {hidden} more; of all defects {by_reason}", flush=True)


def _described(result: VerifyResult) -> str:
    if result.location.is_manifest:
        parts = [f"{result.records:,} rows"]
        if result.unchecked:
            parts.append(
                f"the media of {result.unchecked:,} are remote or in archives: not looked at"
            )
    else:
        parts = [
            f"{result.records:,} records in {result.parts:,} shards",
            f"{result.failures:,} failed",
            f"{result.size / MEGABYTE:,.1f} MB",
        ]
    if result.num_errors:
        parts.append(f"{result.num_errors:,} defects")
    return ", ".join(parts)
