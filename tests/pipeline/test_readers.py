"""The published tables are read without Spark and without Java."""

import json
import os
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

pytestmark = pytest.mark.slow

NO_JVM = {k: v for k, v in os.environ.items() if k != "JAVA_HOME"} | {"PATH": "/nonexistent"}


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


def test_polars_reads_every_table(night):
    code = (
        "import polars as pl, pathlib\n"
        "for p in sorted(pathlib.Path(sys.argv[1]).glob('*/_delta_log')):\n"
        "    print(p.parent.name, pl.scan_delta(str(p.parent)).collect().height)\n"
    )
    heights = dict(line.split() for line in python(code, str(night.warehouse)).splitlines())
    assert int(heights["events"]) == 4000
    assert set(heights) >= {"topk_als", "topk_gru", "topk_two_tower", "metrics", "runs", "items", "quarantine"}


def test_deltalake_runs_sql(night):
    code = (
        "from deltalake import DeltaTable, QueryBuilder\n"
        "lists = DeltaTable(sys.argv[1] + '/topk_als')\n"
        "q = 'select count(distinct user_id) n from lists where rank = 1'\n"
        "print(QueryBuilder().register('lists', lists).execute(q).read_all()['n'][0].as_py())\n"
    )
    assert int(python(code, str(night.warehouse))) == night.table("topk_als")["user_id"].n_unique()


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
