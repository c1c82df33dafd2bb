"""Arrows go down only, and a model's name stands in its folder only: by the sources."""

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

from sparkrec.models import OURS

PACKAGE = Path(__file__).parent.parent / "sparkrec"
# Which models there are, and their settings: anybody may ask, they import next to nothing.
REGISTRY = {"sparkrec.models", "sparkrec.models.model", "sparkrec.models.sections"}
# From the lowest up; a module imports its own layer and those below. Models build on models.
LAYERS = [
    ["errors", "log", "processes", "zones", "version", "exits"],
    ["settings"],
    ["storage"],
    ["spark"],
    ["warehouse"],
    ["ingest", "prepare"],
    ["ranks", "retrieval", "evaluation", "groups"],
    ["models"],
    ["report"],
    ["pipeline"],
    ["cli", "rendering", "makelog", "look"],
]
LAYER = {name: n for n, names in enumerate(LAYERS) for name in names}
NAMES = {model.name for model in OURS}
A_WORD = {"content", "rules", "hybrid", "ratings"}  # names that are words of other things, too


def sources():
    return sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    parts = ("sparkrec", *path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(path) for path in sources()}


def imported(path):
    """Every module of the package that a file imports, at any depth of it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparkrec"):
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield whole if whole in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.startswith("sparkrec"))


def room(module):
    return module.split(".")[1] if "." in module else ""


def test_every_room_has_a_layer():
    assert {room(module_of(path)) for path in sources()} - {""} == LAYER.keys()


def test_arrows_go_down():
    up = [
        f"{path.relative_to(PACKAGE)} imports {module}"
        for path in sources()
        for module in imported(path)
        if module not in REGISTRY and room(module) and room(module_of(path))
        if LAYER[room(module)] > LAYER[room(module_of(path))]
    ]
    assert up == []


def test_models_build_on_one_another_without_circles():
    folders = {folder.name for folder in (PACKAGE / "models").iterdir() if (folder / "__init__.py").exists()}
    builds_on = {}
    for path in sources():
        mine, *_ = [*module_of(path).split(".")[2:3], ""]
        if room(module_of(path)) == "models" and mine in folders:
            theirs = {module.split(".")[2] for module in imported(path) if module.startswith("sparkrec.models.")}
            builds_on.setdefault(mine, set()).update(theirs & folders - {mine})
    in_order = [*TopologicalSorter(builds_on).static_order()]  # raises where there is a circle, and says which
    assert set(in_order) == folders


def test_what_models_there_are_is_asked_without_importing_anything():
    inner = [f"{folder.name}/{file}" for folder in (PACKAGE / "models").iterdir() for file in ("__init__", "settings")]
    for module in ("__init__", "model", "sections", *inner):
        path = PACKAGE / "models" / f"{module}.py"
        if path.exists():
            rooms = {room(name) for name in imported(path)}
            assert rooms <= {"models", "log"} | (
                {"settings", "errors"} if module == "sections" or "settings" in module else set()
            ), path
            assert not re.search(r"import (pyspark|torch|numpy)", path.read_text()), path


def test_a_models_name_stands_in_its_folder_only():
    for path in sources():
        where = path.relative_to(PACKAGE).as_posix()
        if where.startswith("models/"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            said = {
                ast.Constant: lambda n: n.value if isinstance(n.value, str) else "",
                ast.Attribute: lambda n: n.attr,
                ast.Name: lambda n: n.id,
            }.get(type(node), lambda _: "")(node)
            assert said not in NAMES - A_WORD, f"{path}:{getattr(node, 'lineno', 0)} names the model {said}"
        for module in imported(path):
            assert room(module) != "models" or module.split(".")[2:3] == [] or module.split(".")[2] not in NAMES, (
                f"{path} imports {module}"
            )
