import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*command, cwd, **variables):
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built in a copy, so that the checkout stays clean."""
    folder = tmp_path_factory.mktemp("packaging")
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    for name in ("mmembed", "train", "export", "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    pip = (sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index")
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("installed")
    pip = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet")
    run(*pip, "--target", target, wheel, cwd=target)
    return target


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT)).replace(folder, package, 1)
        for folder, package in (
            ("mmembed", "mmembed"),
            ("train", "mmembed_train"),
            ("export", "mmembed_export"),
        )
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".json", ".html", ".css", ".js")
    }
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_no_package_gets_the_name_of_a_folder_of_programs(installed):
    names = {path.name for path in installed.iterdir()}
    assert {"mmembed", "mmembed_train", "mmembed_export"} <= names
    assert not names & {"train", "export", "tests"}


def test_the_command_works_from_the_installation(installed):
    script = installed / "bin" / "mmembed"
    listed = run(sys.executable, script, "--help", cwd=installed, PYTHONPATH=str(installed))
    for verb in PROJECT["project"]["entry-points"]["mmembed.verbs"]:
        assert f"  {verb:<10} " in listed
    where = run(
        sys.executable,
        "-c",
        "import mmembed_train, mmembed; print(mmembed.__file__, mmembed_train.__file__)",
        cwd=installed,
        PYTHONPATH=str(installed),
    )
    assert all(path.startswith(str(installed)) for path in where.split())


def test_every_verb_names_a_function(installed):
    script = (
        "from importlib.metadata import entry_points\n"
        "for verb in entry_points(group='mmembed.verbs'): assert callable(verb.load()), verb"
    )
    run(sys.executable, "-c", script, cwd=installed, PYTHONPATH=str(installed))


def test_constraints_pin_what_is_installed_and_required():
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    groups = PROJECT["project"]["optional-dependencies"].values()
    required = [*PROJECT["project"]["dependencies"], *(line for group in groups for line in group)]
    for requirement in map(Requirement, required):
        assert requirement.specifier.contains(pins[requirement.name]), requirement
    assert pins["torch"] == version("torch").split("+")[0]
