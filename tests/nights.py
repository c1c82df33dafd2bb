"""Small logs and the nights that tests run on them."""

from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import polars as pl

from sparkrec.config import load_config
from sparkrec.makelog import LogOptions, make_log
from sparkrec.pipeline.nightly import run_nightly

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
    "train.snapshot_files=2",
    "topk.k=5",
    "gate.enabled=false",  # what an hour of data teaches is not worth a judgement
    "prepare.text.method=tfidf",
    "prepare.text.dim=4",
]


@dataclass(frozen=True)
class Place:
    """A log folder, a warehouse, and the nights to run on them."""

    log: Path
    warehouse: Path
    fmt: str
    first: date
    days: int

    @property
    def last(self) -> date:
        return self.first + timedelta(days=self.days - 1)

    def settings(self, *more: str) -> list[str]:
        return [
            f"logs.path={self.log}",
            f"logs.format={self.fmt}",
            f"warehouse.path={self.warehouse}",
            *SMALL,
            *more,
        ]

    def run(self, spark, night: date, *more: str) -> int:
        return run_nightly(load_config(None, self.settings(*more)), night.isoformat(), spark=spark)

    def table(self, name: str) -> pl.DataFrame:
        return pl.read_delta(str(self.warehouse / name))

    def versions(self) -> dict[str, int]:
        from deltalake import DeltaTable

        tables = sorted(p.parent for p in self.warehouse.glob("*/_delta_log"))
        return {t.name: DeltaTable(str(t)).version() for t in tables}


def make_place(folder: Path, fmt: str = "invoices", days: int = 12, events: int = 4000) -> Place:
    first = date(2024, 1, 1)
    make_log(LogOptions(fmt, events, users=120, items=60, days=days, start=first), folder / "made")
    return Place(folder / "made" / "log", folder / "warehouse", fmt, first, days)
