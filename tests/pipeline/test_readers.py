"""The published tables are read without Spark and without Java."""

import importlib.metadata as metadata
import json
import os
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import polars as pl
import pytest
from packaging.requirements import Requirement

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
NO_JVM = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"} | {"PATH": "/nonexistent"}


def distributions(*names: str) -> dict[str, metadata.Distribution]:
    """The installed distributions of these names and all that they require."""
    found: dict[str, metadata.Distribution] = {}
    wanted = list(names)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found[name] = metadata.distribution(name)
            required = [Requirement(line) for line in found[name].requires or []]
            wanted += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def link(site: Path, *names: str) -> None:
    """Puts these distributions and what they require into another environment."""
    for distribution in distributions(*names).values():
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            if not (site / top).exists():
                (site / top).symlink_to(distribution.locate_file(top))


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> str:
    """The interpreter of another environment, which has polars, deltalake and what these require, and nothing else."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    link(site, "polars", "deltalake")
    return str(folder / "bin" / "python")


@pytest.fixture(scope="module")
def reader(tmp_path_factory) -> str:
    """The interpreter of an environment in which this package is installed without its extras."""
    folder = tmp_path_factory.mktemp("reader")
    venv.create(folder, with_pip=False, symlinks=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    link(site, *(Requirement(line).name for line in project["dependencies"]))
    for name in ("sparkrec", "conf"):
        (site / name).symlink_to(ROOT / name)
    return str(folder / "bin" / "python")


def reads(interpreter: str, code: str, *args: str) -> str:
    """What a program of a data analyst prints, in an environment of its own, without Java."""
    done = subprocess.run(
        [interpreter, "-I", "-c", code, *args], env=NO_JVM, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def python(code: str, *args: str) -> str:
    """Runs code that cannot import Spark, where there is no Java."""
    guarded = "import sys\nfor name in ('pyspark', 'py4j', 'delta'):\n    sys.modules[name] = None\n" + code
    done = subprocess.run(
        [sys.executable, "-c", guarded, *args], env=NO_JVM, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sparkrec(*args: str) -> list[dict]:
    out = python("from sparkrec.cli import main\nsys.exit(main(sys.argv[1:]))", *args)
    return [json.loads(line) for line in out.splitlines()]


def test_another_environment_has_neither_spark_nor_this_package(elsewhere):
    code = "from importlib.util import find_spec as f; print([n for n in ('pyspark', 'py4j', 'sparkrec') if f(n)])"
    assert reads(elsewhere, code) == "[]\n"


def test_polars_reads_every_table(night, elsewhere):
    code = (
        "import polars as pl, pathlib, sys\n"
        "for p in sorted(pathlib.Path(sys.argv[1]).glob('*/_delta_log')):\n"
        "    print(p.parent.name, pl.scan_delta(str(p.parent)).collect().height)\n"
    )
    heights = dict(line.split() for line in reads(elsewhere, code, str(night.warehouse)).splitlines())
    assert int(heights["events"]) == 4000
    assert set(heights) >= {"topk_als", "topk_gru", "topk_two_tower", "metrics", "runs", "items", "quarantine"}


def test_deltalake_runs_sql(night, elsewhere):
    code = (
        "import sys\n"
        "from deltalake import DeltaTable, QueryBuilder\n"
        "lists = DeltaTable(sys.argv[1] + '/topk_als')\n"
        "q = 'select count(distinct user_id) n from lists where rank = 1'\n"
        "print(QueryBuilder().register('lists', lists).execute(q).read_all()['n'][0].as_py())\n"
    )
    assert int(reads(elsewhere, code, str(night.warehouse))) == night.table("topk_als")["user_id"].n_unique()


def test_the_package_without_extras_queries_reports_and_rolls_back(night, reader, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    there, user = f"warehouse.path={place.warehouse}", place.table("topk_als")["user_id"][0]
    commands = [
        ["query", "topk", "--model", "als", "--user", user, there],
        ["query", "metrics", there],
        ["query", "sql", "select count(*) n from topk_als", there],
        ["report", there, "--out", str(tmp_path / "page.html")],
        ["rollback", "--to", place.last.isoformat(), "--pin", there],
    ]
    code = (
        "import json, sys\nfrom importlib.util import find_spec\nfrom sparkrec.cli import main\n"
        "assert not [n for n in ('pyspark', 'torch', 'petastorm', 'pandas', 'scipy') if find_spec(n)]\n"
        "sys.exit(max(main(words) for words in json.loads(sys.argv[1])))"
    )
    said = reads(reader, code, json.dumps(commands))
    assert user in said
    assert place.table("current")["pinned"].all()
    assert "topk_als" in (tmp_path / "page.html").read_text()


def test_query_topk_joins_titles_and_keeps_the_order(night):
    user = night.table("topk_als")["user_id"][0]
    rows = sparkrec("query", "topk", "--model", "als", "--user", user, "--format", "json",
                    f"warehouse.path={night.warehouse}")  # fmt: skip
    assert [r["rank"] for r in rows] == list(range(1, len(rows) + 1))
    titles = dict(night.table("items").select("id", "title").iter_rows())
    assert [r["title"] for r in rows] == [titles[r["item_id"]] for r in rows]


def test_query_sql_joins_tables(night):
    query = "select g.user_id, i.title from topk_gru g join items i on i.id = g.item_id where g.rank = 1"
    rows = sparkrec("query", "sql", query, "--format", "json", f"warehouse.path={night.warehouse}")
    assert len(rows) == night.table("topk_gru").filter(pl.col("rank") == 1).height


@pytest.mark.parametrize("command", ["metrics", "runs", "tables"])
def test_the_other_queries_answer(night, command):
    assert sparkrec("query", command, "--format", "json", f"warehouse.path={night.warehouse}")


def test_no_secret_path_to_pickle(night):
    assert not [p for p in Path(night.warehouse).rglob("*") if p.suffix in {".pkl", ".pt", ".pth", ".pickle"}]
