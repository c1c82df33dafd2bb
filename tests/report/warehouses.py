"""A small warehouse of two nights, written without Spark, whose texts try to break out of a page."""

import json
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta

import polars as pl
from deltalake import write_deltalake

from sparkrec.settings.config import Config
from sparkrec.settings.sections import GateConfig, LogsConfig
from sparkrec.warehouse.location import Warehouse

NIGHTS = (date(2024, 1, 1), date(2024, 1, 2))
SCRIPT = "<script>document.title='pwned'</script>"
RAW = f'17850,{SCRIPT},"it\'s" & <img src=x onerror=alert(1)>,\u202eoops'
USER = "\"><svg onload=alert(1)> it's 🎧"
TITLE = "</style><b>Mug</b> & 'cup'"
REASON = "<i>bad</i> value"
LONG = "x" * 400
T0 = datetime(2024, 1, 3, 1, 0, tzinfo=UTC)
STAGES = ("ingest", "index", "prepare", "train_gru", "train_als", "evaluate", "topk")
ITEM_COUNT = 20


def config(gate: GateConfig | None = None) -> Config:
    gate = gate or GateConfig(k=10, below_popularity=0.25, below_last=0.1)
    return replace(Config(), models=["als", "gru"], gate=gate, logs=LogsConfig(format="invoices"))


def run_row(night: date, stage: str, **more) -> dict:
    start = T0 + timedelta(days=NIGHTS.index(night), minutes=STAGES.index(stage))
    row = {
        "run_id": f"{night}-a", "run_date": night, "stage": stage, "status": "done", "started_at": start,
        "ended_at": start + timedelta(seconds=30), "inputs": "{}", "outputs": "{}", "config_hash": f"hash-{stage}",
        "config": json.dumps(asdict(config())), "code_version": "0.1.0+abc", "rows_in": None, "rows_out": None,
        "rows_quarantined": None, "rows_duplicate": None, "message": None, "jobs": 12, "seconds": 30.0,
    }  # fmt: skip
    return row | more


def write_runs(path: str, rows: list[dict]) -> None:
    counts = dict.fromkeys(("rows_in", "rows_out", "rows_quarantined", "rows_duplicate"), pl.Int64)
    write_deltalake(path, pl.DataFrame(rows, schema_overrides=counts | {"message": pl.String}), mode="append")


def night_rows(night: date, held_back: bool = False) -> list[dict]:
    n = NIGHTS.index(night)
    topk = {"status": "done", "outputs": json.dumps({"topk_als": n, "topk_gru": n}), "message": "als: 3 lists; gru: 3"}
    if held_back:
        message = "als: 3 lists; gru held back: recall@10 0.1000 is more than 10% below the last published model's"
        topk = {"status": "held_back", "outputs": json.dumps({"topk_als": n}), "message": message}
    return [
        run_row(night, "ingest", rows_in=100, rows_out=90, rows_quarantined=7, rows_duplicate=3, message="1 new files"),
        run_row(night, "prepare", outputs=json.dumps({"sessions": n, "copurchase": 0, "interactions": 0})),
        run_row(night, "train_als", outputs=json.dumps({"models/als": f"{night}.a"}), message="holdout; full"),
        run_row(night, "train_gru", outputs=json.dumps({"models/gru": f"{night}.g"})),
        run_row(night, "topk", **topk),
    ]


def write_lists(path: str, night: date, model: str) -> None:
    users = [USER, "b", "c"]
    rows = [(night, u, r, f"i{r + n}", 1.0 / r, f"{night}.v", "model") for n, u in enumerate(users) for r in (1, 2, 3)]
    frame = pl.DataFrame(
        rows, schema=["run_date", "user_id", "rank", "item_id", "score", "model_version", "source"], orient="row"
    ).cast({"rank": pl.Int32, "score": pl.Float32})
    if model == "gru":
        frame = frame.with_columns(key_type=pl.lit("user"))
    write_deltalake(path, frame, mode="append", partition_by=["run_date"])


def write_warehouse(folder) -> Warehouse:
    """Two nights of als and gru; the second one's gru is held back."""
    w = str(folder)
    for n, night in enumerate(NIGHTS):
        write_runs(f"{w}/runs", night_rows(night, held_back=n == 1))
        write_lists(f"{w}/topk_als", night, "als")
        start = T0 + timedelta(days=n)
        refused = [(RAW, REASON, "f.csv", start + timedelta(seconds=5))] * (n + 1)
        refused += [(LONG, "too long", LONG, start + timedelta(seconds=5))]
        schema = ["raw", "reason", "source_file", "ingested_at"]
        write_deltalake(f"{w}/quarantine", pl.DataFrame(refused, schema=schema, orient="row"), mode="append")
        lengths = [2, 2, 3, 40] if n else [2, 5]
        sessions = pl.DataFrame(
            {"user_idx": [None, *[0] * (len(lengths) - 1)], "items": [[1] * k for k in lengths]},
            schema={"user_idx": pl.Int32, "items": pl.List(pl.Int32)},
        )
        write_deltalake(f"{w}/sessions", sessions, mode="overwrite")
        values = [("als", 0.5 + n / 10, "holdout_users"), ("popularity_recent", 0.4, "holdout_users"),
                  ("gru", 0.3 - n / 5, "holdout_sessions"), ("popularity_recent", 0.2, "holdout_sessions")]  # fmt: skip
        metrics = [(night, m, "v", metric, 10, v, 50, s) for m, v, s in values for metric in ("recall", "coverage")]
        schema = ["run_date", "model", "model_version", "metric", "k", "value", "n", "split"]
        frame = pl.DataFrame(metrics, schema=schema, orient="row").cast({"k": pl.Int32})
        write_deltalake(f"{w}/metrics", frame, mode="append", partition_by=["run_date"])
    write_lists(f"{w}/topk_gru", NIGHTS[0], "gru")
    since = [(m, NIGHTS[1] if m == "als" else NIGHTS[0], "v", T0) for m in ("als", "gru")]
    write_deltalake(
        f"{w}/current", pl.DataFrame(since, schema=["model", "run_date", "model_version", "since"], orient="row")
    )
    for table, ids in (("item_index", [f"i{n}" for n in range(1, ITEM_COUNT + 1)]), ("user_index", [USER, "b", "c"])):
        frame = pl.DataFrame({"id": ids, "idx": range(len(ids))}).cast({"idx": pl.Int32})
        write_deltalake(f"{w}/{table}", frame)
    titles = [TITLE if n == 1 else f"Cup {n}" for n in range(1, ITEM_COUNT + 1)]
    ids = [f"i{n}" for n in range(1, ITEM_COUNT + 1)]
    write_deltalake(f"{w}/items", pl.DataFrame({"id": ids, "title": titles}))
    events = [(0, item, T0 + timedelta(minutes=item)) for item in range(ITEM_COUNT) for _ in range(ITEM_COUNT - item)]
    frame = pl.DataFrame(events, schema=["user_idx", "item_idx", "ts"], orient="row")
    write_deltalake(f"{w}/interactions", frame.cast({"user_idx": pl.Int32, "item_idx": pl.Int32}))
    history = [{"epoch": n, "loss": 0.69314 + 1e-5 / n, "seconds": 2.0} for n in (1, 2, 3)]
    model = folder / "models" / "gru" / str(NIGHTS[1]) / "holdout"
    model.mkdir(parents=True)
    (model / "model.json").write_text(json.dumps({"history": history}))
    return Warehouse(w)
