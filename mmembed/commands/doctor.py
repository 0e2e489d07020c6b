"""Check this installation, and print the command that fixes each problem.

mmembed doctor
"""

# Libraries are imported only where they are checked: this must run when they are missing.

from __future__ import annotations

import _ctypes
import argparse
import ctypes
import platform
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mmembed.errors import DataError

if TYPE_CHECKING:
    from packaging.requirements import Requirement

OLDEST_PYTHON: Final = (3, 11)

MODULES: Final = {"opencv-python-headless": "cv2", "scikit-learn": "sklearn"}
"""Distribution -> the module it gives, where that is not its name."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: the thing.
        state: its version, or what is wrong.
        fix: the command that fixes it; None if it works.
    """

    what: str
    state: str
    fix: str | None = None


def main(argv: Sequence[str] | None = None) -> None:
    """Print one line for each thing that was checked.

    Raises:
        DataError: something is missing or does not work.
    """
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("mmembed doctor", description=__doc__, formatter_class=raw)
    parser.parse_args(argv)
    findings = []
    for finding in examine():
        findings.append(finding)
        print(f"{'ok  ' if finding.fix is None else 'BAD '} {finding.what}: {finding.state}")
        if finding.fix:
            print(f"     fix: {finding.fix}", flush=True)
    bad = [finding.what for finding in findings if finding.fix]
    if bad:
        raise DataError("this installation", "incomplete", f"missing or broken: {', '.join(bad)}")
    print("OK")


def examine() -> Iterator[Finding]:
    """Check Python, every dependency, the codecs and models that come with them, and the disk."""
    yield _python()
    try:
        from packaging.requirements import Requirement
    except ImportError as error:
        yield Finding("packaging", _line(error), _install("packaging"))
        return  # without it no version can be compared
    for line in requires("mmembed") or []:
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _dependency(requirement)
    yield from _extras()
    checks: dict[str, tuple[str, Callable[[], str]]] = {
        "speech synthesis": ("espeakng-loader", _speech),
        "face detection": ("opencv-python-headless", _faces),
        "H.264 and AAC": ("av", _codecs),
    }
    for what, (distribution, check) in checks.items():
        if distribution == "espeakng-loader" and find_spec("espeakng_loader") is None:
            continue  # the extra `demo` is not installed
        try:
            yield Finding(what, check())
        except Exception as error:  # a broken library may raise anything
            yield Finding(what, _line(error), _install(distribution, force=True))
    import torch

    from mmembed.training.distributed import cpu_count

    devices = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    yield Finding("runs on", ", ".join([*devices, f"{cpu_count()} CPU cores"]))
    for folder in (Path.cwd(), Path(tempfile.gettempdir())):
        yield _writable(folder)


def _python() -> Finding:
    found = f"{platform.python_version()} at {sys.executable}"
    wanted = ".".join(map(str, OLDEST_PYTHON))
    fix = f"python{wanted} -m venv .venv && .venv/bin/pip install mmembed"
    return Finding("Python", found, None if sys.version_info >= OLDEST_PYTHON else fix)


def _dependency(requirement: Requirement) -> Finding:
    name = requirement.name
    wanted = f"{name}{requirement.specifier}"
    try:
        found = version(name)
    except PackageNotFoundError:
        return Finding(name, "not installed", _install(wanted))
    if not requirement.specifier.contains(found, prereleases=True):
        return Finding(name, f"{found}, not {requirement.specifier}", _install(wanted))
    module = MODULES.get(name, name.replace("-", "_"))
    try:
        import_module(module)
    except Exception as error:  # a broken binary may raise anything
        return Finding(name, f"{found}, cannot be imported: {_line(error)}", _install(wanted, True))
    return Finding(name, found)


def _extras() -> Iterator[Finding]:
    """Which extras are installed; none of them has to be."""
    from packaging.requirements import Requirement

    needed: dict[str, list[str]] = {}
    for requirement in map(Requirement, requires("mmembed") or []):
        for extra in metadata("mmembed").get_all("Provides-Extra") or []:
            here = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
            if here and requirement.name != "mmembed" and extra not in ("all", "dev"):
                needed.setdefault(extra, []).append(requirement.name)
    for extra, names in needed.items():
        try:
            for name in names:
                version(name)
            state = "installed"
        except PackageNotFoundError:
            state = f"not installed (pip install 'mmembed[{extra}]')"
        yield Finding(f"extra {extra}", state)


def _install(requirement: str, force: bool = False) -> str:
    again = "--force-reinstall --no-deps " if force else ""
    return f"{sys.executable} -m pip install {again}'{requirement}'"


def _speech() -> str:
    import espeakng_loader

    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Info.restype = ctypes.c_char_p
    voices = Path(espeakng_loader.get_data_path()) / "voices"
    if not voices.is_dir():
        raise FileNotFoundError(f"no voices at {voices}")
    version = library.espeak_Info(None).decode()
    _ctypes.dlclose(library._handle)  # speech is reproducible only from a library newly loaded
    return f"espeak-ng {version}"


def _faces() -> str:
    import cv2

    path = Path(cv2.__file__).parent / "data" / "haarcascade_frontalface_default.xml"
    if cv2.CascadeClassifier(str(path)).empty():
        raise FileNotFoundError(f"no face model at {path}")
    return "Haar cascade"


def _codecs() -> str:
    import av.codec

    for name in ("h264", "aac"):
        av.codec.Codec(name, "r")
        av.codec.Codec(name, "w")
    return "read and written"


def _writable(folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"mmembed")
    except OSError as error:
        return Finding(f"write to {folder}", _line(error), f"chmod u+w {folder}")
    return Finding(f"write to {folder}", "works")


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")
