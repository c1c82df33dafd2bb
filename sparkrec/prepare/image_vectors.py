"""Vectors of the items' images by a pretrained network, on Spark's executors: read, decoded and applied in batches.

An image that cannot be had leaves its item without a vector; why is counted. Vectors are kept by the image's place, and
an image that is the same still is not read again.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.prepare.image_files import BROKEN, LACKING, LARGE, UnusableError, read
from sparkrec.prepare.image_networks import NETWORKS, ImageNetwork, load_network, vectors
from sparkrec.prepare.numbering import cut_and_count
from sparkrec.processes import begin_task
from sparkrec.settings.config import config_hash
from sparkrec.settings.sections import ImageConfig
from sparkrec.storage import files
from sparkrec.warehouse.tables import ID, IDX, IMAGE_VECTORS, ITEM_IDX, MADE_BY, NAME, PLACE, STAMP, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import Column, DataFrame
    from torch import nn

SIZE, SHORTER = 224, 256  # the middle SIZE × SIZE are looked at, where the shorter side is SHORTER pixels long
MOST_PIXELS = 50_000_000
READ, KEPT = "read", "kept"
_LOOK = (SIZE, SHORTER, "bicubic")  # what else decides on a vector, beside the network
_STATE = "state"


@dataclass(frozen=True)
class ImageVectors:
    """What became of the items' images.

    Attributes:
        rows: item_idx int, name string (``image_<network>``), vector array<float> of length 1; an item without an
            image that can be read has none.
        fresh: The columns of ``tables.IMAGE_VECTORS``: what was computed now, and is to be kept.
        counts: ``images`` (places, each once) = ``images_read`` + ``images_kept`` (known, and the same still) +
            ``images_lacking`` (no such file or address) + ``images_broken`` (not decoded, or of no finite vector) +
            ``images_too_large``.
    """

    rows: DataFrame
    fresh: DataFrame
    counts: dict[str, int]


def image_vectors(items: DataFrame, index: DataFrame, config: ImageConfig, known: DataFrame | None) -> ImageVectors:
    """Vectors of the items' images. The images are read before this returns, and none that is known and the same still.

    Args:
        items: ``id`` string and the attributes.
        index: ``id`` string, ``idx`` int.
        config: The attribute, the network and its weights.
        known: The columns of ``tables.IMAGE_VECTORS``; None: nothing.

    Raises:
        UserError: ``items`` lacks the column; the weights cannot be read, or are another network's.
    """
    if dict(items.dtypes).get(config.column) != "string":
        named = ", ".join(name for name, kind in items.dtypes if kind == "string" and name != ID)
        raise UserError(
            "no such column of images in items", where=f"prepare.image.column={config.column}",
            fix=f"choose among {named or 'none: declare one in the format'}",
        )  # fmt: skip
    data = files.read_bytes(config.weights)
    load_network(config.network, data, config.weights)  # what is wrong with it is said once, and before all else
    version = hashlib.sha256(data).hexdigest()
    look = NETWORKS[config.network]
    made_by = config_hash(config.network, version, *_LOOK, look.mean, look.deviation)
    given = index.join(items.select(ID, _place(config).alias(PLACE)), ID).where(F.col(PLACE) != "")
    given = given.select(F.col(IDX).alias(ITEM_IDX), PLACE)
    if known is None:
        known = given.sparkSession.createDataFrame([], IMAGE_VECTORS.ddl)
    known = known.where(F.col(MADE_BY) == made_by)
    places = given.select(PLACE).distinct().join(known.select(PLACE, STAMP), PLACE, "left")
    places = places.repartition(given.sparkSession.sparkContext.defaultParallelism, PLACE)

    def embed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        begin_task()
        for batch in batches:
            for begin in range(0, batch.num_rows, config.batch):
                yield _embedded(batch.slice(begin, config.batch), lambda: _network(config, version), config)

    found = places.mapInArrow(embed, f"{PLACE} string, {STAMP} string, {VECTOR} array<float>, {_STATE} string")
    states = (READ, KEPT, LACKING, BROKEN, LARGE)
    told = {f"images_{state}": F.count_if(F.col(_STATE) == state) for state in states}
    found, counts = cut_and_count(found, images=F.count(F.lit(1)), **told)
    before = known.select(PLACE, F.col(VECTOR).alias("before"))
    there = given.join(found.where(F.col(_STATE).isin(READ, KEPT)), PLACE).join(before, PLACE, "left")
    vector = F.when(F.col(_STATE) == KEPT, F.col("before")).otherwise(F.col(VECTOR))
    rows = there.select(ITEM_IDX, F.lit(f"image_{config.network}").alias(NAME), vector.alias(VECTOR))
    fresh = found.where((F.col(_STATE) == READ) & (F.col(STAMP) != ""))
    return ImageVectors(rows, fresh.select(PLACE, STAMP, F.lit(made_by).alias(MADE_BY), VECTOR), counts)


def _place(config: ImageConfig) -> Column:
    """Where an image is: what the attribute says, under ``config.folder`` where it is relative."""
    said = F.trim(F.col(f"`{config.column}`"))
    if not config.folder:
        return said
    absolute = said.contains("://") | said.startswith("/") | said.startswith("file:") | (said == "")
    return F.when(absolute, said).otherwise(F.concat(F.lit(files.join(config.folder, "")), said))


# ---- inside of the Python workers ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _network(config: ImageConfig, version: str) -> nn.Module:
    """Reads the network once a process; ``version``, the weights' hash, tells new ones apart."""
    torch.set_num_threads(1)  # Spark runs a task on each core
    return load_network(config.network, files.read_bytes(config.weights), config.weights)


def _embedded(batch: pa.RecordBatch, network: Callable[[], nn.Module], config: ImageConfig) -> pa.RecordBatch:
    """The vectors of some images, which are null where they are known, and what became of each."""
    import pyarrow as pa

    known = NETWORKS[config.network]
    states, stamps, images = [], [], []
    for place, known_stamp in zip(batch.column(PLACE).to_pylist(), batch.column(STAMP).to_pylist(), strict=True):
        state, stamp = READ, ""
        try:
            data, stamp = read(place, config, known_stamp or "")
            if data is None:
                state = KEPT
            else:
                images.append(pixels(data, known))
        except UnusableError as reason:
            state = str(reason)
        states.append(state)
        stamps.append(stamp)
    made: list[np.ndarray | None] = [None] * len(states)
    if images:
        found = torch.nn.functional.normalize(vectors(network(), torch.from_numpy(np.stack(images)))).numpy()
        there = [n for n, state in enumerate(states) if state == READ]
        for n, vector in zip(there, found, strict=True):
            if np.isfinite(vector).all() and vector.any():
                made[n] = vector
            else:
                states[n] = BROKEN
    told = [pa.array(column, pa.string()) for column in (stamps, states)]
    columns = [batch.column(PLACE), told[0], pa.array(made, pa.list_(pa.float32())), told[1]]
    return pa.RecordBatch.from_arrays(columns, names=[PLACE, STAMP, VECTOR, _STATE])


def pixels(data: bytes, known: ImageNetwork) -> np.ndarray:
    """What the network looks at, float32 [3, 224, 224]: the middle of the image, its colours scaled.

    Raises:
        UnusableError: The bytes are no image, or one of too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise UnusableError(LARGE)
            image = opened.convert("RGB")
    except Exception as error:  # whatever a decoder raises at bytes that are none of its own
        if isinstance(error, UnusableError):
            raise
        raise UnusableError(BROKEN) from error
    half = min(image.size) * SIZE / SHORTER / 2
    (x, y), middle = (side / 2 for side in image.size), (SIZE, SIZE)
    image = image.resize(middle, Image.Resampling.BICUBIC, box=(x - half, y - half, x + half, y + half))
    scaled = (np.asarray(image, np.float32) / 255.0 - np.array(known.mean, np.float32)) / np.array(
        known.deviation, np.float32
    )
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)
