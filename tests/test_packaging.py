"""What is in the wheel, what it declares, and that it works where nothing else is installed."""

import ast
import json
import shutil
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import packages_distributions, version
from pathlib import Path

import numpy as np
import pytest
from helpers import environments
from helpers.clips import grey_steps, tone, write_video
from helpers.encoders import write_encoder
from helpers.prepared import embedding, write_embeddings
from helpers.tiny_bert import write_posts
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OWN = {"mmembed": "mmembed", "train": "mmembed_train", "export": "mmembed_export"}
CORE = PROJECT["project"]["dependencies"]
OPTIONAL = PROJECT["project"]["optional-dependencies"]


def expanded(lines: list[str]) -> Iterator[str]:
    """The requirements of other projects, those of our own extras put in their place."""
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == "mmembed":
            for extra in requirement.extras:
                yield from expanded(OPTIONAL[extra])
        else:
            yield line


EXTRAS = {name: sorted(set(expanded(lines))) for name, lines in OPTIONAL.items() if name != "dev"}


def call(*command, cwd, code=0, **variables) -> str:
    """What a program of an environment prints; from a folder in which no source code lies."""
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environments.clean(**variables),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


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
    call(*pip, "--wheel-dir", folder, source, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_holds_every_module_and_nothing_else(wheel):
    expected = {
        str(path.relative_to(ROOT)).replace(folder, package, 1)
        for folder, package in OWN.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    with zipfile.ZipFile(wheel) as file:
        held = {name for name in file.namelist() if ".dist-info/" not in name}
    assert held == expected


def test_no_package_gets_the_name_of_a_folder_of_programs(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = {name.partition("/")[0] for name in file.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == set(OWN.values())


def test_constraints_pin_what_is_installed_and_required():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = (line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(name): pin for name, pin in pinned}
    required = [*CORE, *expanded(OPTIONAL["dev"]), *EXTRAS["baselines"]]
    for requirement in map(Requirement, required):
        pin = pins[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(pin), requirement
    assert pins["torch"] == version("torch").split("+")[0]


def imported(path: Path) -> set[str]:
    """Top-level names that a module imports anywhere, also by `import_module` of a constant."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            names.add(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    return {name.partition(".")[0] for name in names}


def test_every_import_is_declared_and_every_dependency_imported():
    """An import that another library happens to bring along breaks when that library drops it."""
    found = set().union(*(imported(p) for name in OWN for p in (ROOT / name).rglob("*.py")))
    found -= {*OWN.values(), *sys.stdlib_module_names}
    given = packages_distributions()
    distributions = {
        name: set(map(canonicalize_name, given.get(name, [f"{name} (not installed)"])))
        for name in found
    }
    core = {canonicalize_name(Requirement(line).name) for line in CORE}
    extra = {
        canonicalize_name(Requirement(line).name) for lines in EXTRAS.values() for line in lines
    }
    undeclared = {name: d for name, d in distributions.items() if not d & (core | extra)}
    assert not undeclared
    assert core <= set().union(*distributions.values())


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory) -> Path:
    """The programs of an environment with the wheel and what it declares, no extra among it."""
    return environments.make(tmp_path_factory.mktemp("alone") / "env", wheel, "", CORE)


IMPORT_ALL = """
import importlib, json, pkgutil, sys
import mmembed, mmembed_export, mmembed_train
failed = set()
for package in (mmembed, mmembed_export, mmembed_train):
    assert package.__file__.startswith(sys.prefix), package.__file__
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            failed.add(error.name)
print(json.dumps(sorted(failed)))
"""


def missed(programs: Path, cwd: Path) -> set[str]:
    """The modules of other projects that our modules cannot import."""
    return set(json.loads(call(programs / "python", "-c", IMPORT_ALL, cwd=cwd)))


def extras_with(distributions: list[str]) -> set[str]:
    """The extras that install one of these."""
    return {
        extra
        for extra, lines in EXTRAS.items()
        if {Requirement(line).name for line in lines} & set(distributions)
    }


def test_without_extras_only_their_modules_are_missed(alone, tmp_path):
    given = packages_distributions()
    for module in missed(alone, tmp_path):
        extras = [
            name
            for name, lines in EXTRAS.items()
            if {Requirement(x).name for x in lines} & set(given[module])
        ]
        assert extras, module
    call(alone / "python", "-c", "import hypothesis", cwd=tmp_path, code=1)  # nothing else is here


def test_without_extras_the_command_starts(alone, tmp_path):
    listed = call(alone / "mmembed", "--help", cwd=tmp_path)
    for command in PROJECT["project"]["entry-points"]["mmembed.commands"]:
        assert f"  {command:<10} " in listed


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """encoder, clips/a.mp4 with its words, embeddings and posts to search and to learn from."""
    made = tmp_path_factory.mktemp("folder")
    write_encoder(made / "encoder")
    write_embeddings(made / "vectors", [embedding(n) for n in range(4)], ["audio"])
    (made / "posts").mkdir()
    write_posts(made / "posts", {"train": 6, "dev": 3, "test": 3})
    (made / "a.csd").write_bytes(b"\x89HDF\r\n\x1a\n")  # nothing but the mark of HDF5
    (made / "clips").mkdir()
    write_video(
        made / "clips" / "a.mp4", grey_steps(range(30, 130, 4)), np.arange(25) / 25, tone(1)
    )
    (made / "clips" / "a.txt").write_text("red on blue")
    return made


@pytest.mark.long
def test_without_extras_clips_are_prepared_embedded_and_searched(alone, folder):
    mmembed = alone / "mmembed"
    assert "BAD" not in call(mmembed, "doctor", cwd=folder)
    call(mmembed, "prepare", "clips", "clips", "--out", "data", cwd=folder)
    given = ("--encoder", "encoder")
    streams = ("--streams", "audio+video", "text")
    call(mmembed, "extract", "data/shards", *given, "--out", "near", *streams, cwd=folder)
    search = (mmembed, "search", "near/audio+video", "clips/a.mp4", *given)
    assert "1.0000  clips-a" in call(*search, cwd=folder)
    call(mmembed, "verify", "data", "near", cwd=folder)
    call(mmembed, "export", "encoder", "--out", "a.pt2", "--streams", "audio",
         "--format", "torch-export", cwd=folder)  # fmt: skip


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address(folder) -> Iterator[str]:
    """Of the folder, on this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


USES = {
    "train": ("pretrain", "tiny", "--out", "r", "--data.shards", "nowhere"),
    "studies": ("finetune", "emotion", "--out", "r", "--embeddings", "nowhere"),
    "report": ("report", "nowhere"),
    "demo": ("prepare", "talkers", "--out", "t", "--speakers", "2", "--clips-per-speaker", "1"),
    "corpora": ("convert", "a.csd", "--out", "c"),
    "all": ("compare", "nowhere"),
    "faiss": ("search", "vectors", "clip-1", "--approximate"),
    "hub": ("extract", "clips/a.mp4", "--encoder", "somebody/encoder", "--out", "far"),
    "onnx": ("export", "encoder", "--out", "a.onnx", "--streams", "text", "--format", "onnx"),
    "ray": ("extract", "clips/a.mp4", "--encoder", "encoder", "--out", "o", "--ray", "localhost:9"),
    "remote": ("search", "ADDRESS/vectors", "clip-1"),
    "serve": ("serve", "--encoder", "encoder", "--port", "-1"),
    "backbones": ("finetune", "demux", "--shards", "posts", "--backbone", "nowhere", "--out", "r"),
}
"""Extra -> arguments of mmembed that need it."""

REFUSED = {
    "hub": "hub", "serve": "port", "ray": "--ray localhost:9",
    "corpora": "a.csd",
    **dict.fromkeys(("backbones", "train", "studies", "report", "all"), "nowhere"),
}  # fmt: skip
"""What they say with the extra, where this machine alone cannot give what they ask for."""

CODE = {
    "baselines": "import opensmile; opensmile.Smile()",  # for benchmarks/real_speech.py
    "mteb": "from mmembed.embeddings.mteb import MtebEncoder as E; E('encoder').mteb_model_meta",
}
"""Extra -> what needs it where no command does."""


@pytest.mark.long
@pytest.mark.parametrize("extra", EXTRAS)
def test_each_extra_brings_what_its_programs_need(extra, alone, wheel, folder, address, tmp_path):
    if not environments.installed(EXTRAS[extra]):
        pytest.skip(f"{', '.join(EXTRAS[extra])}: not installed here")
    if extra == "backbones":  # used by a command that needs another extra first
        alone = environments.make(tmp_path / "alone", wheel, "studies", [*CORE, *EXTRAS["studies"]])
        lines, extras = [*EXTRAS["studies"], *EXTRAS["backbones"]], "studies,backbones"
    else:
        lines, extras = EXTRAS[extra], extra
    here = environments.make(tmp_path / "env", wheel, extras, [*CORE, *lines])
    given = packages_distributions()
    assert not any(extra in extras_with(given[module]) for module in missed(here, tmp_path))
    if extra in CODE:
        call(here / "python", "-c", CODE[extra], cwd=folder)
        return
    words = [word.replace("ADDRESS", address) for word in USES[extra]]
    offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "MMEMBED_CACHE": str(tmp_path / "cache")}
    if extra != "all":
        refused = call(alone / "mmembed", *words, cwd=folder, code=2, **offline)
        assert f"needs pip install 'mmembed[{extra}]'" in refused and "Traceback" not in refused
    code = {"train": 4, "corpora": 4}.get(extra, 2 if extra in REFUSED else 0)
    printed = call(here / "mmembed", *words, cwd=folder, code=code, **offline)
    assert "needs pip" not in printed and REFUSED.get(extra, "") in printed
