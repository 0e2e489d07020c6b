"""Imports point down: docs/architecture.md shows the floors, this keeps them."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = {"mmembed": "mmembed", "train": "mmembed_train", "export": "mmembed_export"}

FLOORS = [
    [
        "mmembed.batch",
        "mmembed.config",
        "mmembed.method",
        "mmembed.errors",
        "mmembed.io.json",
        "mmembed.__version__",
    ],
    [
        "mmembed.nn",
        "mmembed.features",
        "mmembed.ctc",
        "mmembed.losses",
        "mmembed.losses.multilabel",
        "mmembed.metrics",
        "mmembed.metrics.multilabel",
        "mmembed.report.picture_urls",
        "mmembed.metrics.similarity",
    ],
    [
        "mmembed.encoder",
        "mmembed.traceable",
        "mmembed.backbones.text",
        "mmembed.data",
        "mmembed.embeddings.read",
        "mmembed.embeddings.ivf",
    ],
    ["mmembed.methods", "mmembed.training"],
    [
        "mmembed.recipes",
        "mmembed.embedder",
        "mmembed.extraction",
        "mmembed.report",
        "mmembed.embedder.embed_files",
        "mmembed.embedder.sklearn",
        "mmembed.embeddings.search",
        "mmembed.serve",
    ],
    ["mmembed.commands", "mmembed_train", "mmembed_export"],
]
FLOOR_OF = {part: number for number, floor in enumerate(FLOORS) for part in floor}

# Neighbours that do not know each other.
APART = [
    {"mmembed.methods", "mmembed.training"},
    {"mmembed_train", "mmembed_export"},
    {"mmembed.commands", "mmembed_train"},
    {"mmembed.commands", "mmembed_export"},
]
# ... but the programs share the command line's progress and exit codes.
SHARED = {"mmembed.commands.cli", "mmembed.commands.progress"}


def modules() -> dict[str, Path]:
    """Module name -> file, of everything that is installed."""
    return {
        ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)): path
        for folder, package in FOLDERS.items()
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


def imports(path: Path) -> set[str]:
    """Our own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            whole = node.module in FOLDERS.values()  # from mmembed import losses
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= names if whole else {node.module}
    return {name for name in found if name.split(".")[0] in {*FOLDERS, *FOLDERS.values()}}


def part_of(module: str) -> str:
    """The entry of FLOORS a module belongs to."""
    names = module.split(".")
    return ".".join(names[:2]) if names[0] == "mmembed" else names[0]


def complaints(module: str, path: Path) -> list[str]:
    part = part_of(module)
    return [
        f"{module} imports {other}"
        for other in sorted(imports(path))
        if FLOOR_OF[part_of(other)] > FLOOR_OF[part]
        or ({part, part_of(other)} in APART and other not in SHARED)
    ]


def test_imports_point_down():
    assert [
        complaint
        for module, path in modules().items()
        if module != "mmembed.__init__"  # the public surface: it gathers from all floors
        for complaint in complaints(module, path)
    ] == []


@pytest.mark.parametrize(
    ("module", "line", "bad"),
    [
        ("mmembed.nn.pooling", "from mmembed.encoder import Encoder", True),
        ("mmembed.nn.pooling", "from mmembed import encoder", True),
        ("mmembed.nn.pooling", "def f():\n    import mmembed.data.media.decode", True),
        ("mmembed.nn.pooling", "from mmembed.batch import Packed", False),
        ("mmembed.methods.emotion", "from mmembed.training.step import train_step", True),
        ("mmembed_train.pretrain", "from mmembed_export.extract import main", True),
        ("mmembed_train.pretrain", "from mmembed.commands.demo import main", True),
        ("mmembed_train.pretrain", "from mmembed.commands.cli import run_program", False),
    ],
)
def test_the_rule_finds_what_it_should(tmp_path, module, line, bad):
    path = tmp_path / "module.py"
    path.write_text(line)
    assert bool(complaints(module, path)) == bad


def test_every_module_has_a_floor():
    assert {part_of(module) for module in modules()} - set(FLOOR_OF) == {
        "mmembed.__init__",
    }
