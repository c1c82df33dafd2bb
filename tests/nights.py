"""Small logs and the nights that tests run on them."""

import json
import re
import shutil
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path

import polars as pl
import pytest

from sparkrec.makelog import LogOptions, make_log
from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.settings.config import load_config

SMALL = [
    "als.rank=8",
    "als.iterations=3",
    "als.user_blocks=2",
    "als.item_blocks=2",
    "gru.epochs=1",
    "gru.layers=[16]",
    "gru.lanes=16",
    "gru.n_sample=64",
    "two_tower.dim=8",
    "two_tower.epochs=1",
    "two_tower.batch_size=128",
    "evaluation.holdout_days=3",
    "evaluation.min_users=1",  # however few users a small log holds out, they are judged
    "evaluation.min_pairs=1",
    "train.snapshot_files=2",
    "topk.k=5",
    "gate.enabled=false",  # what an hour of data teaches is not worth a judgement
    "prepare.text.method=word2vec",
    "prepare.text.dim=4",
    "topk.similar_items=false",  # some seconds a model; the night of most tests has them
    "report.nightly=false",  # a second each; tests/report has nights that write theirs
    "maintenance.enabled=false",  # has its own tests
]

PRODUCTS = (  # a night of all models but those of most tests
    "models=[prod2vec,meta_prod2vec,content2vec,copurchase_counts,rules,item_neighbours,user_neighbours,session_neighbours,content,implicit_mf,hybrid,gru,session_hybrid]",
    "prod2vec.dim=8",
    "prod2vec.epochs=2",
    "prod2vec.lists=bought_together",
    "prod2vec.batch_size=256",
    "meta_prod2vec.dim=8",
    "meta_prod2vec.epochs=2",
    "meta_prod2vec.batch_size=256",
    "content2vec.dim=8",
    "content2vec.hidden=[8]",
    "content2vec.epochs=1",
    "content2vec.batch_size=256",
    "implicit_mf.dim=8",
    "implicit_mf.epochs=2",
    "rules.min_support=0.01",
    "hybrid.context=true",
    "hybrid.candidates=20",
    "user_groups.enabled=true",
    "user_groups.groups=[2,3]",
    "topk.similar_items=true",
    "topk.similar_users=true",
)

GATED = (  # a night of ALS with a gate that lets pass what an hour's data teach
    "models=[als]",
    "gate.enabled=true",
    "gate.k=10",
    "gate.below_popularity=1.0",
    "gate.below_last=1.0",
    "gate.min_users_share=0.5",
)
WARM = ("models=[gru,two_tower]", "gru.warm_start=true", "two_tower.warm_start=true")
TRAIN_WARM = ("train_gru", "train_two_tower", "topk")  # a model is published by topk

DATA_TABLES = {  # what any two attempts at a night give alike, but for these columns
    "events": [],
    "quarantine": ["ingested_at"],
    "items": [],
    "users": [],
    "user_index": [],
    "item_index": [],
    "feature_index": [],
    "interactions": [],
    "sessions": [],
    "copurchase": [],
    "user_item": [],
    "item_features": [],
    "user_features": [],
}


@dataclass(frozen=True)
class Place:
    """A log folder, a warehouse, and the nights to run on them."""

    log: Path
    warehouse: Path
    fmt: str
    first: date
    days: int
    more: tuple[str, ...] = ()  # settings of every night here

    @property
    def last(self) -> date:
        return self.first + timedelta(days=self.days - 1)

    def settings(self, *more: str) -> list[str]:
        return [
            f"logs.path={self.log}",
            f"logs.format={self.fmt}",
            f"warehouse.path={self.warehouse}",
            *SMALL,
            *self.more,
            *more,
        ]

    def at(self, warehouse: Path) -> "Place":
        """The same log with another warehouse."""
        return replace(self, warehouse=warehouse)

    def copied_to(self, warehouse: Path) -> "Place":
        """The same log with a copy of the warehouse, which a test may change."""
        shutil.copytree(self.warehouse, warehouse)
        return self.at(warehouse)

    def run(self, spark, night: date, *more: str, only: tuple[str, ...] = (), force: bool = False) -> int:
        """A whole night, or some of its stages; the exit code."""
        config = load_config(None, self.settings(*more))
        return run_nightly(config, night.isoformat(), Choice(only, force=force), spark=spark)

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_delta(str(self.warehouse / name))

    def versions(self) -> dict[str, int]:
        from deltalake import DeltaTable

        tables = sorted(p.parent for p in self.warehouse.glob("*/_delta_log"))
        return {t.name: DeltaTable(str(t)).version() for t in tables}


def make_place(
    folder: Path, fmt: str = "invoices", days: int = 12, events: int = 4000, more: tuple[str, ...] = ()
) -> Place:
    first = date(2024, 1, 1)
    make_log(LogOptions(fmt, events, users=120, items=60, days=days, start=first), folder / "made")
    return Place(folder / "made" / "log", folder / "warehouse", fmt, first, days, more)


def goes_on(place: Place, folder: Path, days: int) -> Place:
    """The same invoices in another folder, and those of more days: of the same users and items, numbered anew."""
    start = place.last + timedelta(days=1)
    make_log(LogOptions("invoices", 330 * days, users=120, items=60, days=days, start=start), folder / "made")
    shutil.copytree(place.log, folder / "log")
    for file in (folder / "made" / "log").glob("*.csv"):
        numbered = re.sub(r"^(C?)5", r"\g<1>6", file.read_text(), flags=re.MULTILINE)
        (folder / "log" / file.name).write_text(numbered)
    return replace(place, log=folder / "log")


def most_listed(place: Place) -> tuple[str, str]:
    """Title and id of the item that ALS lists for most users, by its title; no other item has it."""
    titles = place.table("items").select("id", "title")
    shown = place.table("topk_als").filter(pl.col("source") == "model").join(titles, left_on="item_id", right_on="id")
    title = shown["title"].value_counts(sort=True)["title"][0]
    (item,) = titles.filter(pl.col("title") == title)["id"]
    return title, item


def assert_same_night(ours: Place, theirs: Place, models: tuple[str, ...] = ("als", "gru", "two_tower")) -> None:
    """Data tables and baselines are equal, models within tolerance; everyone has a list of the same length."""
    for name, varies in DATA_TABLES.items():
        a, b = (_sorted(p.table(name).drop(varies)) for p in (ours, theirs))
        assert a == b, name
    keys = ["model", "metric", "k", "split"]
    mine, other = (p.table("metrics").drop("run_date", "model_version") for p in (ours, theirs))
    judged = pl.col("model").is_in([*models, "popularity", "popularity_recent"])
    if "gru" not in models:
        judged &= pl.col("split") != "holdout_sessions"  # which a night without a GRU does not judge
    both = mine.filter(judged).join(other.filter(judged), on=keys, nulls_equal=True, suffix="_there")
    assert both.height == mine.filter(judged).height == other.filter(judged).height > 0
    off = both.filter((pl.col("value") - pl.col("value_there")).abs() > 0.05 * pl.col("value").abs().clip(1.0))
    assert off.height == 0, off
    baselines = both.filter(pl.col("model").str.starts_with("popularity"))
    assert baselines["value"].to_list() == pytest.approx(baselines["value_there"].to_list(), abs=1e-12)
    for model in models:
        lists = [p.table(f"topk_{model}").select("user_id", "rank").sort("user_id", "rank") for p in (ours, theirs)]
        assert lists[0].equals(lists[1]), model


def _sorted(table: pl.DataFrame) -> list[str]:
    return sorted(json.dumps(row, default=str, sort_keys=True) for row in table.iter_rows(named=True))
