"""Virtual environments that hold what one requirement declares, and nothing else.

Distributions are links to those that the tests run with, so that an environment takes a second and
no download. What is linked is followed through the metadata of each distribution, as pip would; pip
itself then installs the wheel without an index, and fails if something required is not there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def applies(requirement: Requirement, extras: Iterable[str] = ()) -> bool:
    """Whether a requirement holds on this machine, of a distribution asked for with `extras`."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """Name -> distribution of requirements and all that these require.

    Raises:
        PackageNotFoundError: one of the named requirements is not installed here.
    """
    found: dict[str, Distribution] = {}
    done: set[tuple[str, frozenset[str]]] = set()
    waiting = [requirement for line in requirements if applies(requirement := Requirement(line))]
    while waiting:
        requirement = waiting.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in done:
            continue
        done.add((name, extras))
        found[name] = held = distribution(name)
        needed = map(Requirement, held.requires or [])
        waiting += [other for other in needed if applies(other, extras)]
    return found


def installed(requirements: Iterable[str]) -> bool:
    """Whether the tests run with all of them."""
    try:
        closure(requirements)
    except PackageNotFoundError:
        return False
    return True


def _top_level(held: Distribution) -> Iterator[Path]:
    """What a distribution put into site-packages."""
    names = {path.parts[0] for path in held.files or ()}
    for name in sorted(names - {"..", "__pycache__"}):
        yield Path(str(held.locate_file(name)))


def make(folder: Path, wheel: Path, extra: str, requirements: Iterable[str]) -> Path:
    """An environment with a wheel, one of its extras ("" = none) and what both declare.

    Returns:
        its folder `bin`.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = folder / "lib" / version / "site-packages"
    for held in closure(requirements).values():
        for path in _top_level(held):
            if path.exists() and not (site / path.name).exists():
                (site / path.name).symlink_to(path)
    wanted = f"{wheel}[{extra}]" if extra else str(wheel)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    done = subprocess.run(
        [*pip, "install", "--no-index", "--quiet", "--no-compile", wanted],
        capture_output=True,
        text=True,
        check=False,
        env=clean(),
    )
    assert done.returncode == 0, done.stderr
    return folder / "bin"


def clean(**variables: str) -> dict[str, str]:
    """The variables of this process without those that name folders of modules."""
    held = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return held | {"OMP_NUM_THREADS": "1", **variables}
