"""Compiled loops of code that came in a zip file, as Spark ships it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sparkrec

PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from sparkrec.models.gru.compiled import step
assert ".zip" in step.__file__
rows = np.zeros((2, 3), np.float32)
step.add_rows(rows, np.array([1]), np.ones((1, 3), np.float32))
assert rows.sum() == 3
stats = step.add_rows.stats
print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""


def shipped(folder):
    """The package as a zip file in a folder of its own, as each of Spark's applications has it."""
    folder.mkdir()
    root = Path(sparkrec.__file__).parent
    with zipfile.ZipFile(folder / "sparkrec.zip", "w") as file:
        for path in root.rglob("*.py"):
            file.write(path, path.relative_to(root.parent))
    return folder / "sparkrec.zip"


def run(code, cache):
    usual = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "NUMBA", "XDG"))}
    environment = {**usual, "XDG_CACHE_HOME": str(cache)}
    command = [sys.executable, "-c", PROGRAM, str(code)]
    done = subprocess.run(command, cwd=code.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.integration
def test_what_one_application_compiles_another_one_loads_and_no_folders_pile_up(tmp_path):
    assert run(shipped(tmp_path / "first"), tmp_path / "cache") == ["0", "1"]
    folders = sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_dir())
    assert run(shipped(tmp_path / "second"), tmp_path / "cache") == ["1", "0"]
    assert sorted(p for p in (tmp_path / "cache").rglob("*") if p.is_dir()) == folders


@pytest.mark.integration
def test_without_a_folder_to_write_to_loops_are_compiled_and_run(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert run(shipped(tmp_path / "only"), tmp_path / "file" / "cache") == ["0", "1"]
