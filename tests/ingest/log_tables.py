"""Tables that logs are read from, as the tests make, change and take them in."""

import shutil
from datetime import date, datetime

import polars as pl
import yaml

from sparkrec.ingest import files_to_read, ingest
from sparkrec.settings.config import Config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import IngestConfig, LogsConfig, WarehouseConfig
from sparkrec.warehouse.tables import EVENTS, FILES, QUARANTINE

DAY = date(2024, 1, 1)
FEED = {"delta.enableChangeDataFeed": "true"}
FORM = {
    "readers": {"kind": "delta"},
    "user": {"columns": "user", "required": False},
    "item": {"columns": "item"},
    "ts": {"columns": "at", "unit": "timestamp"},
    "quantity": {"columns": "n", "required": False},
    "event_type": {"default": "click"},
    "event_weights": {"click": 1.0},
    "checks": [{"field": "quantity", "at_least": 0}],
    "item_attributes": [{"name": "title", "columns": "title"}],
}
COLUMNS = "user string, item string, at timestamp, n double, title string, id string"
KEPT = [name for name in EVENTS.column_names if name != "source"]


def form(folder, **changes):
    path = folder / "form.yaml"
    path.write_text(yaml.safe_dump({**FORM, **changes}))
    return str(path)


def row(item, n=1.0, user="u", hour=1, day=1, title="t", id_=None):
    return (user, item, datetime(2024, 1, day, hour), n, title, id_)


def frame(spark, rows):
    return spark.createDataFrame(list(rows), COLUMNS).coalesce(1)


def append(spark, table, rows):
    frame(spark, rows).write.format("delta").mode("append").save(str(table))


def make(spark, table, rows, feed=True):
    """A Delta table in a folder."""
    from delta.tables import DeltaTable

    builder = DeltaTable.createIfNotExists(spark).location(str(table)).addColumns(frame(spark, []).schema)
    for key, value in (FEED if feed else {}).items():
        builder = builder.property(key, value)
    builder.execute()
    append(spark, table, rows)


def do(spark, table, statement):
    """A statement of SQL with ``{}`` for the table in a folder."""
    spark.sql(statement.format(f"delta.`{table}`"))


def take_in(spark, folder, table=None, path="", fmt=None, warehouse="w", run_date=DAY, **settings):
    """An ingest; its account is checked."""
    settings = {"max_quarantine_share": 1.0, **settings}
    config = Config(
        logs=LogsConfig(str(path), fmt or str(folder / "form.yaml"), table=str(table or "")),
        warehouse=WarehouseConfig(path=str(folder / warehouse)),
        ingest=IngestConfig(**settings),
    )
    done = ingest(spark, config, load_format(config.logs.format), "attempt", run_date)
    assert done.rows_read == done.rows_kept + done.rows_quarantined + done.rows_duplicate
    return done


def planned(spark, folder, table):
    config = Config(
        logs=LogsConfig(format=str(folder / "form.yaml"), table=str(table)),
        warehouse=WarehouseConfig(path=str(folder / "w")),
    )
    return files_to_read(spark, config, load_format(config.logs.format), DAY)


def rows(folder, table, *columns, warehouse="w"):
    return sorted(pl.read_delta(str(folder / warehouse / table.name)).select(columns).rows(), key=repr)


def content(folder, warehouse="w"):
    """Events and refused rows, without where they came from."""
    return (
        rows(folder, EVENTS, *KEPT, warehouse=warehouse),
        rows(folder, QUARANTINE, "raw", "reason", warehouse=warehouse),
    )


def assert_as_a_first_night(spark, folder, table, run_date=DAY):
    """The tables are what an ingest into a new warehouse makes of the table as it is."""
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    take_in(spark, folder, table, warehouse="scratch", run_date=run_date)
    assert content(folder) == content(folder, "scratch")


def items(folder):
    return [name for (name,) in rows(folder, EVENTS, "item_id")]


def sources(folder):
    return [name.rsplit("/", 1)[-1] for (name,) in rows(folder, FILES, "source")]


FIRST = [row("a"), row("a"), row("b"), row("c", n=-1.0), row("d", user=None, day=2)]
