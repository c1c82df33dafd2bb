"""What the programs in ``bench/`` that train share: a session with a slot for each rank, a snapshot without Spark."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sparkrec.settings.sections import SparkConfig


def spark_session(ranks: int) -> Any:
    """Spark with a task slot for each rank."""
    from sparkrec.spark.session import build_session

    return build_session(SparkConfig(master=f"local[{ranks}]", conf={"spark.driver.memory": "1g"}))


def write_parts(parts: Mapping[int, Mapping[str, np.ndarray]], path: str, group: str, n_slots: int) -> None:
    """Columns by number of the file, in the layout of ``ranks.snapshot``, whose Spark job is no part of a bench."""
    Path(path, "data").mkdir(parents=True)
    files, names = [], []
    for number, columns in parts.items():
        rows = len(columns[group])
        table = pa.table({**columns, "file_no": np.full(rows, number, dtype=np.int32)})
        name, names = f"data/part-{number:05d}.parquet", table.column_names
        pq.write_table(table, f"{path}/{name}", row_group_size=rows)
        files.append({"name": name, "rows": rows, "groups": len(np.unique(columns[group]))})
    manifest = {"files": files, "columns": names, "group": group, "order": [], "n_slots": n_slots,
                "inputs": {"made up": 1}, "format": 1}  # fmt: skip
    Path(path, "manifest.json").write_text(json.dumps(manifest))
