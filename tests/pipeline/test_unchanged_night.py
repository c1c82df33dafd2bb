"""What the shared night gives is what it gave when ``unchanged_night.json`` was written: nothing moves unnoticed.

Exactly: the data tables' and the snapshots' rows in all columns but floats, the rows that stages account for, metrics
and lists of the models that count (neighbours, rules, popularity), who has lists of the others and how long they are.
Within a rounding (1e-6 of the value): floats of the data tables, and the metrics and scores of the models that count.
Closely: ALS, whose normal equations a machine's BLAS sums up in its own order: scores to 1e-3, and one item in a
hundred may be another one, where two scores are equal but for that; metrics to 0.01.
Within ``LEARNT``: metrics of models that are learnt step by step (vectors of texts among them), which rounding leads
apart; a list made from the wrong rows, or a part trained on another one's events, is further off.

A change that is meant to move a result writes the file anew, and its message says why:

    SPARKREC_WRITE_NIGHT=1 pytest tests/pipeline/test_unchanged_night.py
"""

import hashlib
import json
import os
from pathlib import Path

import polars as pl
import polars.selectors as cs
import pytest

from tests.nights import DATA_TABLES

pytestmark = pytest.mark.slow

FILE = Path(__file__).with_name("unchanged_night.json")
COUNTED = ("item_neighbours", "user_neighbours", "session_neighbours", "rules", "popularity", "popularity_recent")
CLOSE = ("als",)
LEARNT = 0.03
OFTEN_TIED = 0.01  # share of a list's rows


@pytest.fixture(params=["night"])
def before_and_now(request):
    """What the file holds of a night, and what the night gives."""
    name = request.param
    now = described(request.getfixturevalue(name))
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    if os.environ.get("SPARKREC_WRITE_NIGHT"):
        FILE.write_text(json.dumps({**known, name: now}, indent=1, sort_keys=True) + "\n")
        pytest.skip(f"{name} written to {FILE.name}")
    return known[name], now


def test_tables_and_snapshots_hold_the_same_rows(before_and_now):
    before, now = before_and_now
    for kind in ("tables", "snapshots"):
        assert set(now[kind]) == set(before[kind])
        for name, rows in before[kind].items():
            found = now[kind][name]
            assert (found["rows"], found["digest"]) == (rows["rows"], rows["digest"]), name
            assert found["floats"] == {column: pytest.approx(sums, rel=1e-6) for column, sums in rows["floats"].items()}


def test_stages_account_for_the_same_rows(before_and_now):
    before, now = before_and_now
    assert now["runs"] == before["runs"]


def test_models_reach_the_same_metrics(before_and_now):
    before, now = before_and_now
    assert set(now["metrics"]) == set(before["metrics"])
    for name, (value, n) in before["metrics"].items():
        model = name.split()[0]
        room = 1e-6 if model in COUNTED else 0.01 if model in CLOSE else LEARNT * max(1.0, abs(value))
        assert now["metrics"][name] == [pytest.approx(value, abs=room), n], name


def test_lists_hold_the_same_items(before_and_now):
    before, now = before_and_now
    assert set(now["lists"]) == set(before["lists"])
    for table, lists in before["lists"].items():
        found = now["lists"][table]
        assert found["keys"] == lists["keys"], table
        assert set(found["items"]) == set(lists["items"]), table
        close = any(name in table for name in CLOSE)
        moved, rows = 0, 0
        for key, items in lists["items"].items():
            same = [a == b for a, b in zip(items.split(), found["items"][key].split(), strict=True)]
            moved, rows = moved + same.count(False), rows + len(same)
        assert moved <= OFTEN_TIED * rows * close, (table, moved, rows)
        assert found["scores"] == pytest.approx(lists["scores"], rel=1e-3 if close else 1e-6), table


def described(place):
    """What the file holds of a night."""
    tables = {name: rows_of(place, name, varies) for name, varies in DATA_TABLES.items()}
    tables |= {name: rows_of(place, name) for name in ("item_vectors", "rules") if there(place, name)}
    runs = place.table("runs").filter(pl.col("status") == "done").select("stage", cs.starts_with("rows_"))
    return {
        "tables": {name: rows for name, rows in tables.items() if rows},
        "snapshots": snapshots(place),
        "runs": {stage: list(rows) for stage, *rows in runs.sort("stage").iter_rows()},
        "metrics": metrics(place),
        "lists": {
            p.parent.name: lists(place, p.parent.name) for p in sorted(place.warehouse.glob("topk_*/_delta_log"))
        },
    }


def there(place, name):
    return (place.warehouse / name / "_delta_log").is_dir()


def rows_of(place, name, varies=()):
    """Number of a table's rows, a digest of what is exact in them, and two sums of each column of floats."""
    frame = place.table(name).drop(*varies, "model_version", strict=False)
    return summed(frame.sort(cs.exclude(cs.float() | cs.by_dtype(pl.List(pl.Float32))), cs.float(), nulls_last=True))


def summed(frame):
    """See ``rows_of``; the rows in their order."""
    exact = frame.select(cs.exclude(cs.float() | cs.by_dtype(pl.List(pl.Float32))))
    text = "\n".join(json.dumps(row, default=str) for row in exact.iter_rows())
    floats = {}
    for column in frame.select(cs.float()).columns:
        values = frame[column].cast(pl.Float64)
        place = pl.Series(range(1, frame.height + 1), dtype=pl.Float64) / max(1, frame.height)
        floats[column] = [values.sum(), (values * place).sum()]
    return {"rows": frame.height, "columns": exact.columns, "digest": digest(text), "floats": floats}


def snapshots(place):
    """The files that the neural models read, row by row in the order that they read them in."""
    found = {}
    for manifest in sorted(place.warehouse.glob("snapshots/*/*/*/manifest.json")):
        for number, file in enumerate(json.loads(manifest.read_text())["files"]):
            name = f"{manifest.parts[-4]}/{manifest.parts[-2]}/{number}"
            frame = pl.read_parquet(manifest.parent / file["name"]) if file["name"] else pl.DataFrame()
            found[name] = {**summed(frame), "groups": file["groups"]}
    return found


def metrics(place):
    """By model, metric, length and split: the value and how many were judged."""
    rows = place.table("metrics").select("model", "metric", "k", "split", "value", "n").iter_rows()
    return {f"{model} {metric} {k} {split}": [value, n] for model, metric, k, split, value, n in rows}


def lists(place, table):
    """A digest of who has how long a list and, of a model that counts or is close, the items and the scores' sum."""
    names = [c for c in place.table(table).columns if c in ("user_id", "key_type", "item_id")]
    key = names[:1] if "similar" in "".join(place.table(table).columns) else [c for c in names if c != "item_id"]
    other = next(c for c in ("similar_item_id", "similar_user_id", "item_id") if c in place.table(table).columns)
    rows = place.table(table).sort(*key, "rank")
    lengths = rows.group_by(*key, maintain_order=True).len()
    exact = any(f"topk_{name}" in (table, table.removesuffix("_items"), table.removesuffix("_users"))
                for name in (*COUNTED, *CLOSE))  # fmt: skip
    kept = rows if exact else rows.head(0)
    grouped = kept.group_by(*key, maintain_order=True).agg(pl.col(other))
    return {
        "keys": [lengths.height, digest(json.dumps(lengths.rows()))],
        "items": {" ".join(row[:-1]): " ".join(row[-1]) for row in grouped.iter_rows()},
        "scores": [kept["score"].cast(pl.Float64).sum()],
    }


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]
