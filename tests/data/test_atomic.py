"""One program at a time writes to a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmembed.data.atomic import hold_folder
from mmembed.errors import UsageError

HOLD = """
import pathlib, sys, time
from mmembed.data.atomic import hold_folder
hold_folder(pathlib.Path(sys.argv[1]), *sys.argv[2:])
print("held", flush=True)
time.sleep(60)
"""


def test_a_held_folder_is_refused_until_its_holder_is_gone(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another program is writing there"):
            hold_folder(tmp_path, patience=0.1)
        holder.kill()
        holder.wait()
        hold_folder(tmp_path, patience=5)
        hold_folder(tmp_path, patience=0)  # it is this process's own by now


def test_parts_share_a_folder_but_not_a_part(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path), "0-of-2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        for part in ("", "0-of-2"):
            with pytest.raises(UsageError, match="another program is writing there"):
                hold_folder(tmp_path, part, patience=0.1)
        hold_folder(tmp_path, "1-of-2", patience=0.1)
        holder.kill()
