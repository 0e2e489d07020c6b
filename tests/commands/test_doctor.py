import subprocess
import sys

import pytest
from packaging.requirements import Requirement

from mmembed.commands.doctor import Finding, _dependency, examine, main
from mmembed.errors import DataError


def test_this_installation_works(capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "OK"
    assert all(line.startswith("ok ") for line in lines[:-1])
    for what in (
        "Python",
        "torch",
        "espeak-ng",
        "Haar cascade",
        "H.264 and AAC",
        "extra report: installed",
    ):
        assert any(what in line for line in lines)


def test_a_missing_dependency_comes_with_its_command():
    finding = _dependency(Requirement("no-such-distribution>=2"))
    assert finding.state == "not installed"
    assert finding.fix == f"{sys.executable} -m pip install 'no-such-distribution>=2'"


def test_a_wrong_version_comes_with_its_command():
    finding = _dependency(Requirement("numpy<1"))
    assert finding.state.endswith(", not <1")
    assert finding.fix == f"{sys.executable} -m pip install 'numpy<1'"


def test_one_missing_thing_ends_with_code_4(monkeypatch, capsys):
    found = [Finding("a", "1.0"), Finding("b", "not installed", "pip install b")]
    monkeypatch.setattr("mmembed.commands.doctor.examine", lambda: iter(found))
    with pytest.raises(DataError, match="missing or broken: b") as error:
        main([])
    assert error.value.exit_code == 4
    assert "fix: pip install b" in capsys.readouterr().out


def test_it_runs_where_no_library_is_installed(tmp_path):
    script = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'tyro', 'rich', 'numpy', 'cv2', 'packaging'):\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Missing())\n"
        "from mmembed.commands.cli import main\n"
        "main(['doctor'])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 4
    assert "pip install 'packaging'" in done.stdout
    assert done.stderr.startswith("error: this installation: missing or broken: packaging")


def test_an_unwritable_folder_is_found(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(gone))
    gone.rmdir()
    bad = [finding for finding in examine() if finding.fix]
    assert [finding.what for finding in bad] == [f"write to {gone}"]
