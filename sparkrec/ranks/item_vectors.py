"""The items' vectors as an input of training: Parquet files beside a snapshot, which each rank reads by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.errors import InvariantError, UserError
from sparkrec.storage import files
from sparkrec.warehouse.tables import ITEM_IDX, NAME, VECTOR

if TYPE_CHECKING:
    import torch
    from pyspark.sql import DataFrame

FOLDER = "vectors"


def write_item_vectors(vectors: DataFrame | None, snapshot_path: str, names: Sequence[str], setting: str) -> list[str]:
    """Writes the vectors of these names into a snapshot's folder, through Spark's executors.

    Args:
        vectors: Columns of ``tables.ITEM_VECTORS``; None where there is no such table.
        snapshot_path: The snapshot's folder.
        names: What the setting asks for; []: all there are.
        setting: The key of the configuration that asks, for the message.

    Returns:
        The names written.

    Raises:
        UserError: There are no vectors of a name, or none at all.
    """
    there = [] if vectors is None else sorted(row[NAME] for row in vectors.select(NAME).distinct().collect())
    lacking = [name for name in names if name not in there]
    if lacking or vectors is None or not there:
        known = f"choose among {', '.join(there)}, or " if there else ""
        raise UserError("no item vectors of this name", where=f"{setting}={list(names)}: {', '.join(lacking)}",
                        fix=f"{known}see prepare.text and prepare.image")  # fmt: skip
    wanted = vectors.where(vectors[NAME].isin(list(names))) if names else vectors
    wanted.write.mode("overwrite").parquet(files.join(snapshot_path, FOLDER))
    return list(names) or there


def read_item_vectors(snapshot_path: str, names: Sequence[str], n_items: int) -> dict[str, torch.Tensor]:
    """The vectors by name as float32 [n_items, width], zeros for an item that has none.

    Raises:
        InvariantError: An item has two vectors of a name, or is outside of the catalogue.
    """
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    import torch

    if not names:
        return {}
    filesystem, inside = files.resolve(files.join(snapshot_path, FOLDER))
    table = pq.read_table(inside, columns=[ITEM_IDX, NAME, VECTOR], filesystem=filesystem)
    found = {}
    for name in names:
        mine = table.filter(pc.equal(table[NAME], name))
        items, lists = mine[ITEM_IDX].to_numpy(), mine[VECTOR].combine_chunks()
        if len(np.unique(items)) < len(items) or len(items) == 0 or items.max() >= n_items:
            raise InvariantError(f"{snapshot_path}: vectors {name} are not one for each item of {n_items}")
        dense = np.zeros((n_items, len(lists.flatten()) // len(items)), np.float32)
        dense[items] = lists.flatten().to_numpy().reshape(len(items), -1)
        found[name] = torch.from_numpy(dense)
    return found


def describe(vectors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, int | str]]:
    """What ``model.json`` keeps of each: its width, how many items have one, and a hash of the numbers."""
    return {
        name: {
            "width": matrix.shape[1],
            "items": int((matrix != 0).any(1).sum()),
            "sha256": hashlib.sha256(matrix.numpy().tobytes()).hexdigest(),
        }
        for name, matrix in vectors.items()
    }
