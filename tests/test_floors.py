"""The floors of the package: imports only go down."""

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "modeling_pcl"
FLOORS = [("",), ("data",), ("pictures",), ("training", "hub"), ("probes",), ("commands",)]
LEVELS = {name: level for level, names in enumerate(FLOORS) for name in names}
OPTIONAL_IN_THE_ROOT = {"onnx", "onnxruntime"}  # In try and except: what finds faces in photos.
THIRD_PARTY_OF_THE_ROOT = {"torch", "torchvision", "transformers", "huggingface_hub", "numpy", "PIL"}
STAY_HOME = {
    "__init__.py",
    "files.py",
    "options.py",
    "precision.py",
    "progress.py",
}  # Of the root, what no saved model takes along.


def imports(path: Path) -> list[tuple[str, ...]]:
    """Modules that a file imports anywhere in it: those of this package as `("", "data", "images")`."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            folder = path.relative_to(PACKAGE).parts[: -node.level]
            found.append(("", *folder, *(node.module or "").split(".")))
        elif isinstance(node, ast.ImportFrom):
            found.append(tuple(node.module.split(".")))
        elif isinstance(node, ast.Import):
            found += [tuple(alias.name.split(".")) for alias in node.names]
    return [("", *name[1:]) if name[0] == "modeling_pcl" else name for name in found]


def floor(parts: tuple[str, ...]) -> str:
    return parts[0] if parts and parts[0] in LEVELS else ""


def climbs(path: Path) -> list[str]:
    """Imports of a file that lead to a higher floor, or to another part of its own."""
    own = floor(path.relative_to(PACKAGE).parts)
    targets = [(name, floor(name[1:])) for name in imports(path) if name[0] == ""]
    return [".".join(name) for name, other in targets if other != own and LEVELS[other] >= LEVELS[own] and other != ""]


FILES = sorted(path for path in PACKAGE.rglob("*.py") if "templates" not in path.parts)


def test_no_import_climbs():
    assert {str(path.relative_to(PACKAGE)): climbs(path) for path in FILES if climbs(path)} == {}


def test_an_import_that_climbs_is_seen(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images.py").write_text("def late():\n    from ..probes.linear import train\n")
    assert climbs(tmp_path / "data" / "images.py") == [".probes.linear"]
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "card.py").write_text("from modeling_pcl.training.record import describe_run\n")
    assert climbs(tmp_path / "hub" / "card.py") == [".training.record"]


def test_what_travels_with_the_weights_imports_nothing_that_stays_home():
    for path in PACKAGE.glob("*_pcl.py"):
        for name in imports(path):
            if name[0] == "":
                assert name[1].endswith("_pcl"), (path.name, name)
            elif name[0] not in sys.stdlib_module_names:
                assert name[0] in THIRD_PARTY_OF_THE_ROOT | OPTIONAL_IN_THE_ROOT, (path.name, name)


def test_everything_in_the_root_travels_but_a_few():
    assert {path.name for path in PACKAGE.glob("*.py") if not path.name.endswith("_pcl.py")} == STAY_HOME


def test_no_file_is_longer_than_350_lines_and_no_command_than_80():
    for path in FILES:
        limit = 80 if path.parent.name == "commands" and path.name != "main.py" else 350
        assert len(path.read_text().splitlines()) <= limit, path
