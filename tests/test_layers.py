"""Imports point down, and names stand for one thing: docs/architecture.md shows the layers."""

from __future__ import annotations

import ast
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"mmembed": "mmembed", "train": "mmembed_train", "export": "mmembed_export"}

# Parts of one layer do not import each other; of `mmembed.data`, each file or folder is a part.
LAYERS = [
    ["errors", "streams", "metrics", "data.sampler"],
    ["batch", "config"],
    ["settings", "io", "features", "losses", "method", "nn"],
    ["ctc", "backbones", "data.untrusted", "data.manifest", "data.feature_files"],
    ["encoder"],
    ["methods", "pretrained_encoder", "data.example", "data.checks"],
    ["traceable", "data.folders", "data.shards", "data.item"],
    ["training", "data.corpora", "data.media", "data.dataset", "data.frozen_layers"],
    ["data.locations", "data.inputs", "data.fingerprints", "data.loader"],
    ["data.stored_rows", "data.prepare"],
    ["data.verify", "embedder"],
    ["data.inspect", "embeddings", "engines", "pretraining"],
    ["studies"],
    ["protocols"],
    ["report"],
    ["serve"],
    ["commands"],
    ["mmembed_train", "mmembed_export"],
]
LAYER_OF = {part: number for number, layer in enumerate(LAYERS) for part in layer}

# A base name stands for one subject. It repeats where another layer has a file for that subject.
SUBJECTS = {
    "audio": "the audio stream",
    "video": "the video stream",
    "text": "the text stream",
    "search": "the nearest embeddings",
    "prepare": "from a corpus to shards",
    "compare": "finished runs side by side",
    "inspect": "what a corpus holds",
    "run_folder": "the folder of a run",
    "study": "one study",
    "emotion": "the emotion regressor",
    "self_mm": "Self-MM",
    "sdt": "SDT",
    "demux": "Demux and MEmo",
    "layer_anchor": "layer anchoring",
    "emotion_queries": "emotion queries",
    "probe": "linear probes",
    "evaluate": "standard protocols",
    "pretrain": "pre-training",
    "extract": "extraction",
    "finetune": "fine-tuning",
    "encoder": "the encoder",
    "optim": "the optimiser",
}


def modules() -> dict[str, Path]:
    """Module name -> file, of everything that is installed."""
    return {
        ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)): path
        for folder, package in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def imports(path: Path) -> set[str]:
    """Our own modules, or names in them, that a file imports anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in FOLDERS.values()}


def part_of(module: str) -> str:
    """The entry of LAYERS that a module belongs to; "" for the package itself."""
    package, *names = module.split(".")
    if package != "mmembed":
        return package
    return ".".join(names[: 2 if names[:1] == ["data"] else 1])


def complaints(module: str, path: Path) -> list[str]:
    part = part_of(module)
    return [
        f"{module} imports {other}"
        for other in sorted(imports(path))
        if (below := part_of(other)) not in (part, "__version__")
        and LAYER_OF[below] >= LAYER_OF[part]
    ]


def test_imports_point_down():
    assert [
        complaint
        for module, path in modules().items()
        if module != "mmembed.__init__"  # the public surface: it gathers from all layers
        for complaint in complaints(module, path)
    ] == []


@pytest.mark.parametrize(
    ("module", "line", "bad"),
    [
        ("mmembed.nn.transformer", "from mmembed.encoder import Encoder", True),
        ("mmembed.nn.transformer", "from mmembed import encoder", True),
        ("mmembed.nn.transformer", "def f():\n    import mmembed.data.media.decode", True),
        ("mmembed.nn.transformer", "from mmembed.batch import Packed", False),
        ("mmembed.methods.emotion", "from mmembed.data.example import Example", True),
        ("mmembed.data.media.pool", "from mmembed.data import dataset", True),
        ("mmembed.data.media.pool", "from mmembed.data.media import decode", False),
        ("mmembed_train.pretrain", "from mmembed_export.extract import main", True),
        ("mmembed_train.pretrain", "from mmembed.commands.cli import run_program", False),
    ],
)
def test_the_rule_finds_what_it_should(tmp_path, module, line, bad):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert bool(complaints(module, path)) == bad


def test_every_part_has_a_layer():
    parts = {part_of(module.removesuffix(".__init__")) for module in modules()}
    assert parts - {"", "data"} == set(LAYER_OF)


def test_a_base_name_stands_for_one_subject():
    files = defaultdict(list)
    for module, path in modules().items():
        if path.stem != "__init__" and ".data.corpora." not in module:
            files[path.stem].append(module)
    several = {name: found for name, found in files.items() if len(found) > 1}
    assert {name: found for name, found in several.items() if name not in SUBJECTS} == {}
    assert SUBJECTS.keys() <= several.keys()


def test_public_classes_have_names_of_their_own():
    classes = defaultdict(list)
    for module, path in modules().items():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                classes[node.name].append(module)
    assert {name: found for name, found in classes.items() if len(found) > 1} == {}


def test_a_study_has_the_name_of_its_method_and_its_command():
    from mmembed.settings.finetune import RUNS
    from mmembed.studies.registry import STUDIES

    assert list(RUNS) == list(STUDIES)
    for name in STUDIES:
        for folder in ("studies", "methods"):
            assert (ROOT / "mmembed" / folder / f"{name}.py").is_file()


def test_names_of_test_files_are_unique():
    """Pytest imports them by their base names."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    packages = [name.removesuffix(".__init__") for name in modules() if name.endswith("__init__")]
    assert sorted(listed) == sorted(packages)
