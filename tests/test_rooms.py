"""The floor plan: which room may import which, as the package's own docstring says; no import circle; a light first import."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import alpamayo_r1

SOURCE = Path(alpamayo_r1.__file__).parent
ROOMS = {room: set(may.split()) for room, may in re.findall(r"^(\w+) {2,}\S.*?<- ([\w ]+)$", alpamayo_r1.__doc__ or "", flags=re.MULTILINE)}
FILES = sorted(SOURCE.rglob("*.py"))


def name_of(file: Path) -> str:
    """A file's module name below the package, "" for the root."""
    return ".".join(part for part in file.relative_to(SOURCE).with_suffix("").parts if part != "__init__")


MODULES = {name_of(file): file for file in FILES}


def imports(file: Path) -> set[str]:
    """Modules below the package that a file imports anywhere: at its top, inside functions, for type checkers alone."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            if (node.module or "").split(".")[0] == "alpamayo_r1":
                module = node.module.removeprefix("alpamayo_r1").lstrip(".")
                found |= {joined if (joined := f"{module}.{a.name}".lstrip(".")) in MODULES else module for a in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.removeprefix("alpamayo_r1.") for a in node.names if a.name.startswith("alpamayo_r1.")}
    return found


def room_of(module: str) -> str:
    return module.split(".")[0]


def test_every_room_stands_in_the_table():
    rooms = {room_of(name) for name in MODULES} - {"", "__main__"}
    assert rooms == set(ROOMS) and len([entry for entry in SOURCE.iterdir() if entry.name != "__pycache__"]) <= 28


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_room_imports_only_what_the_table_allows(file):
    room = room_of(name_of(file))
    if room in ("", "__main__") or ROOMS[room] == {"everything"}:
        return
    allowed = {room} | (ROOMS[room] - {"nothing"})
    assert {room_of(module) for module in imports(file)} <= allowed


def test_no_import_goes_in_a_circle():
    graph = {name: imports(file) & set(MODULES) - {name} for name, file in MODULES.items()}
    while leaves := [name for name, wanted in graph.items() if not wanted]:
        for name in leaves:
            del graph[name]
        graph = {name: wanted - set(leaves) for name, wanted in graph.items()}
    assert not graph, f"in or above a circle: {graph}"


def test_the_world_knows_records_geometry_files_checks_and_the_rig_alone():
    """So that nothing of the model leaks into what it is tested on."""
    for name, file in MODULES.items():
        if room_of(name) == "world":
            assert {m for m in imports(file) if room_of(m) != "world"} <= {
                "core.types",
                "core.geometry",
                "core.files",
                "core.gate.values",
                "rig.lenses",
                "rig.nominal",
            }, name


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom alpamayo_r1.cli.__main__ import app\nimport alpamayo_r1\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "import json; print(json.dumps([m for m in ('torch', 'numpy', 'pandas', 'matplotlib', 'transformers') if m in sys.modules]))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert json.loads(out.splitlines()[-1]) == []


def test_the_root_has_what_users_need():
    for name in alpamayo_r1.__all__:
        assert getattr(alpamayo_r1, name) is not None


def test_alpamayo_15_stands_on_the_rim_and_nothing_on_it():
    """Its names are thin: they take core, the original's names and matplotlib, and no room knows them."""
    beside = sorted((SOURCE.parent / "alpamayo1_5").rglob("*.py"))
    assert len(beside) > 6
    for file in beside:
        assert {room_of(module) for module in imports(file)} <= {"core", "models", "helper", "load_physical_aiavdataset"}, file
    assert not [file for file in FILES if "import alpamayo1_5" in file.read_text() or "from alpamayo1_5" in file.read_text()]
