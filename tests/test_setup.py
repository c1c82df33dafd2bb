"""What make setup relies on and leaves: the machine's checks, the locks, the packages, Horovod."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from sparkrec.settings.format_files import format_names

ROOT = Path(__file__).resolve().parents[1]
LOCKS = [*ROOT.glob("infra/*.lock"), *ROOT.glob("infra/horovod/*.lock"), *ROOT.glob("infra/airflow/*.lock")]


def locked(path):
    lines = path.read_text().splitlines()
    return dict(line.removesuffix(" \\").split("==") for line in lines if re.match(r"[a-z0-9].*==", line))


@pytest.fixture
def checkout(tmp_path):
    """A copy of what the set-up reads, so that a check that lets a machine pass harms nothing here."""
    for name in ("infra", "conf", "sparkrec"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def program(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def with_java(place, line):
    program(place / "bin" / "java", f"echo '{line}' >&2")
    return {"JAVA_HOME": str(place)}


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (lambda place: {"PYTHON3": "/nowhere/python3.11"}, "Python 3.11 is missing: install python3.11"),
        (
            lambda place: {"PYTHON3": program(place / "old", '[ "$1" = --version ] && echo Python 3.9.2; exit 1')},
            "but .*old is Python 3.9.2",
        ),
        (lambda place: {"JAVA_HOME": "/nowhere"}, "Java 17 is missing .*apt-get install openjdk-17"),
        (lambda place: with_java(place, 'openjdk version "11.0.2" 2019'), "is Java 11: apt-get install openjdk-17"),
        (lambda place: with_java(place, 'java version "1.8.0_301"'), "is Java 1: apt-get install openjdk-17"),
        (lambda place: with_java(place, 'openjdk version "21.0.2" 2024'), "is Java 21: apt-get install openjdk-17"),
        (lambda place: {"CXX": "/nowhere/c++"}, r"a C\+\+ compiler is missing .*apt-get install g\+\+"),
    ],
)
def test_what_the_machine_lacks_is_one_line(checkout, tmp_path, machine, says):
    env = {**os.environ, **machine(tmp_path / "machine")}
    done = subprocess.run([checkout / "infra" / "setup.sh"], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(f"make setup: .*{says}.*\n", done.stderr)
    assert not (checkout / ".venv").exists()


def test_locks_name_every_dependency_exactly_and_no_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    versions = locked(ROOT / "infra" / "requirements.lock")
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    for requirement in map(Requirement, wanted):
        name = requirement.name.lower().replace("_", "-")
        assert requirement.specifier.contains(versions[name]), f"{requirement}: infra/lock.sh renews the locks"
    assert locked(ROOT / "infra" / "build.lock").items() <= versions.items()
    for lock in LOCKS:
        text = lock.read_text()
        assert locked(lock), lock
        assert not re.search(r"https?:|--(extra-)?index-url|--find-links|file:", text), lock
        assert text.count("==") <= text.count("--hash=sha256:"), lock


def test_environment_is_the_locked_one():
    different = {
        name: (expected, version(name))
        for name, expected in locked(ROOT / "infra" / "requirements.lock").items()
        if version(name) != expected
    }
    assert different == {}


def package_files() -> list[Path]:
    """The code, and what the report's page is made from."""
    return [file for pattern in ("*.py", "templates/*") for file in (ROOT / "sparkrec").rglob(pattern)]


def test_wheel_brings_code_and_configuration(checkout, tmp_path):
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", tmp_path / "out"]
    subprocess.run([*command, checkout], check=True, capture_output=True, timeout=300)
    (wheel,) = (tmp_path / "out").glob("sparkrec-*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {str(file.relative_to(ROOT)) for file in package_files()} <= names
    assert {f"sparkrec/{file.relative_to(ROOT)}" for file in (ROOT / "conf").rglob("*.*")} <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"sparkrec"}


def test_zip_for_py_files_is_whole_and_the_same_each_time(tmp_path):
    spec = importlib.util.spec_from_file_location("package", ROOT / "infra" / "package.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    first, second = (module.make_package(tmp_path / f"{n}.zip") for n in "ab")
    assert first.read_bytes() == second.read_bytes()
    assert {str(file.relative_to(ROOT)) for file in package_files()} <= set(zipfile.ZipFile(first).namelist())
    read = "print(f.__file__, *f.format_names(), f.load_format('ratings').name)"
    code = f"import sparkrec.settings.format_files as f; {read}"
    env = {**os.environ, "PYTHONPATH": str(first)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [f"{first}/sparkrec/settings/format_files.py", *format_names(), "ratings"]


def test_horovod_has_pytorch_and_gloo_without_mpi():
    import horovod.torch as hvd

    assert hvd.gloo_built()
    assert not hvd.mpi_built()
