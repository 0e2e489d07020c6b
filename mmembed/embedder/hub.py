"""Encoder folders on the Hugging Face hub; the only part of the embedder that uses the network.

The library comes with `pip install 'mmembed[hub]'` and is imported when a name on the hub is given.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies

from mmembed import __version__
from mmembed.errors import UsageError

NAME: Final = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def is_hub_name(name: str) -> bool:
    """Whether "OWNER/NAME" means the hub: not where OWNER is a folder here, so that a misspelt path
    causes no network access.
    """
    owner = Path(name.partition("/")[0])
    return NAME.fullmatch(name) is not None and not owner.is_dir()


def download(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """Fetch the named files of a repository, or find them in the hub's cache; without a network the
    cache alone is asked, at once.

    Raises:
        UsageError: huggingface_hub is not installed, or does not get them.
    """
    hub = _library(name)
    address = hub.HfApi().endpoint
    reachable = _is_known(address)
    try:
        return Path(
            hub.snapshot_download(
                name,
                revision=revision,
                allow_patterns=list(files),
                library_name="mmembed",
                library_version=__version__,
                local_files_only=not reachable,
            )
        )
    except Exception as error:  # its own, of its network library, of the system: no common parent
        what = f"{name}: neither a folder here nor to be had from the hub"
        if not reachable:
            raise UsageError(
                f"{what}: its cache has none, and there is no way to {address} from here"
            ) from None
        raise _failure(what, error) from None


def upload(name: str, folder: Path) -> str:
    """Make a repository hold exactly the files of a folder; where there is none yet, a private one.

    Returns:
        The address of the commit.

    Raises:
        UsageError: huggingface_hub is not installed, or the hub does not take it.
    """
    hub = _library(name)
    try:
        api: Any = hub.HfApi(library_name="mmembed", library_version=__version__)
        api.create_repo(name, private=True, exist_ok=True)
        commit = api.upload_folder(
            repo_id=name,
            folder_path=folder,
            delete_patterns=["*"],
            commit_message=f"Encoder written by mmembed {__version__}",
        )
    except Exception as error:
        raise _failure(f"{name}: the hub does not take it", error) from None
    return str(commit.commit_url)


def _is_known(address: str) -> bool:
    """Whether a host has an address, or a proxy may know one. The library would try on and on."""
    parts = urlsplit(address)
    if getproxies().get(parts.scheme):
        return True
    try:
        socket.getaddrinfo(parts.hostname, parts.port or parts.scheme)
    except OSError:
        return False
    return True


def _library(name: str) -> ModuleType:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UsageError(f"{name}: needs pip install 'mmembed[hub]' ({error})") from None
    return huggingface_hub


def _failure(what: str, error: Exception) -> UsageError:
    return UsageError(f"{what}: {' '.join(str(error).split()) or type(error).__name__}")
