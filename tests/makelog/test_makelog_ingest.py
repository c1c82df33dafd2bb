"""What the generator promises is what ingest counts: valid events, unreadable rows, duplicates."""

from datetime import date

import pytest

from sparkrec.ingest import ingest
from sparkrec.makelog import LogOptions, make_log
from sparkrec.settings.config import Config
from sparkrec.settings.format_files import load_format
from sparkrec.settings.sections import LogsConfig, WarehouseConfig

CASES = {
    "reviews": {"gzip": True},
    "invoices": {},
    "sessions": {},
    "sessions-csv": {"file_type": "csv"},
    "ratings": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_ingest_counts_what_was_made(spark, tmp_path, case):
    name = case.split("-")[0]
    options = LogOptions(name, 2000, users=60, items=200, days=2, bad_rows=0.05, duplicates=0.1, **CASES[case])
    made = make_log(options, tmp_path / "out")
    items = str(made.items_path) if made.items_path else None
    config = Config(
        logs=LogsConfig(path=str(made.log_path), format=name, items_path=items),
        warehouse=WarehouseConfig(path=str(tmp_path / "warehouse")),
    )
    result = ingest(spark, config, load_format(name), "test", date(2024, 1, 2))
    counted = (result.rows_read, result.rows_kept, result.rows_quarantined, result.rows_duplicate, result.files_new)
    assert counted == (2300, 2000, 100, 200, 2)
    if name != "sessions" or case == "sessions-csv":
        assert len(result.reasons) > 1
    titles = spark.read.format("delta").load(str(tmp_path / "warehouse" / "items"))
    assert titles.where("title is null").count() == 0
    assert titles.count() == (200 if items else titles.select("id").distinct().count())
