"""Vectors of the items' images by a pretrained network, on Spark's executors: read, decoded and applied in batches.

An image that cannot be had leaves its item without a vector; why is counted.
"""

from __future__ import annotations

import functools
import hashlib
import io
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import numpy as np
import torch
from pyspark.sql import functions as F

from sparkrec.errors import UserError
from sparkrec.prepare.counts import Counts, observed
from sparkrec.prepare.image_networks import NETWORKS, ImageNetwork, load_network, vectors
from sparkrec.processes import begin_task
from sparkrec.settings.sections import ImageConfig
from sparkrec.storage import files
from sparkrec.warehouse.tables import ID, IDX, ITEM_IDX, NAME, VECTOR

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame
    from torch import nn

SIZE, SHORTER = 224, 256  # the middle SIZE × SIZE are looked at, where the shorter side is SHORTER pixels long
MOST_PIXELS = 50_000_000
READ, LACKING, BROKEN, LARGE = "read", "lacking", "broken", "too_large"


class _UnusableError(Exception):
    """An image that cannot be had; the reason is its only argument."""


def image_vectors(items: DataFrame, index: DataFrame, config: ImageConfig, counts: Counts | None = None) -> DataFrame:
    """Vectors of the items' images, of length 1; an item without an image that can be read has no row.

    Args:
        items: ``id`` string and the attributes.
        index: ``id`` string, ``idx`` int.
        config: The attribute, the network and its weights.
        counts: Counts ``images`` = ``images_read`` + ``images_lacking`` (no such file or address) + ``images_broken``
            (not decoded, or of no finite vector) + ``images_too_large``.

    Returns:
        item_idx int, name string (``image_<network>``), vector array<float>.

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
    place = F.trim(F.col(f"`{config.column}`"))
    given = index.join(items.select(ID, place.alias("place")), ID).where(F.col("place") != "")
    parts = given.sparkSession.sparkContext.defaultParallelism
    spread = given.select(F.col(IDX).alias(ITEM_IDX), "place").repartition(parts, ITEM_IDX)

    def embed(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        network = _network(config.network, config.weights, version)
        begin_task()
        for batch in batches:
            for begin in range(0, batch.num_rows, config.batch):
                yield _embedded(batch.slice(begin, config.batch), network, config)

    found = spread.mapInArrow(embed, f"{ITEM_IDX} int, {VECTOR} array<float>, state string")
    told = {f"images_{state}": F.count_if(F.col("state") == state) for state in (READ, LACKING, BROKEN, LARGE)}
    found = observed(found, counts, images=F.count(F.lit(1)), **told).where(F.col("state") == READ)
    return found.select(ITEM_IDX, F.lit(f"image_{config.network}").alias(NAME), VECTOR)


# ---- inside of the Python workers ------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=1)
def _network(name: str, path: str, version: str) -> nn.Module:
    """Reads the network once a process; ``version``, the weights' hash, tells new ones apart."""
    torch.set_num_threads(1)  # Spark runs a task on each core
    return load_network(name, files.read_bytes(path), path)


def _embedded(batch: pa.RecordBatch, network: nn.Module, config: ImageConfig) -> pa.RecordBatch:
    """The vectors of some images, and what became of each."""
    import pyarrow as pa

    known = NETWORKS[config.network]
    states, images = [], []
    for place in batch.column("place").to_pylist():
        try:
            images.append(pixels(read(place, config), known))
            states.append(READ)
        except _UnusableError as reason:
            states.append(str(reason))
    made: list[np.ndarray | None] = [None] * len(states)
    if images:
        found = torch.nn.functional.normalize(vectors(network, torch.from_numpy(np.stack(images)))).numpy()
        there = [n for n, state in enumerate(states) if state == READ]
        for n, vector in zip(there, found, strict=True):
            if np.isfinite(vector).all() and vector.any():
                made[n] = vector
            else:
                states[n] = BROKEN
    columns = [batch.column(ITEM_IDX), pa.array(made, pa.list_(pa.float32())), pa.array(states, pa.string())]
    return pa.RecordBatch.from_arrays(columns, names=[ITEM_IDX, VECTOR, "state"])


def read(place: str, config: ImageConfig) -> bytes:
    """The bytes of an image: of an http(s) address, of a file, or of what lies under ``config.folder``.

    Raises:
        _UnusableError: There is none, or it is too large.
    """
    most = int(config.max_mb * 2**20)
    try:
        if place.lower().startswith(("http://", "https://")):
            with urlopen(Request(place, headers={"User-Agent": "sparkrec"}), timeout=config.timeout_s) as answer:
                data: bytes = answer.read(most + 1)
        else:
            absolute = "://" in place or place.startswith(("/", "file:"))
            path = place if absolute or not config.folder else files.join(config.folder, place)
            filesystem, inside = files.resolve(path)
            with filesystem.open_input_stream(inside) as stream:
                data = stream.read(most + 1)
    except (OSError, HTTPException, ValueError, UserError) as error:  # pyarrow's and urllib's are of these
        raise _UnusableError(LACKING) from error
    if len(data) > most:
        raise _UnusableError(LARGE)
    return data


def pixels(data: bytes, known: ImageNetwork) -> np.ndarray:
    """What the network looks at, float32 [3, 224, 224]: the middle of the image, its colours scaled.

    Raises:
        _UnusableError: The bytes are no image, or one of too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data)) as opened:
            if opened.width * opened.height > MOST_PIXELS:
                raise _UnusableError(LARGE)
            image = opened.convert("RGB")
    except Exception as error:  # whatever a decoder raises at bytes that are none of its own
        if isinstance(error, _UnusableError):
            raise
        raise _UnusableError(BROKEN) from error
    half = min(image.size) * SIZE / SHORTER / 2
    (x, y), middle = (side / 2 for side in image.size), (SIZE, SIZE)
    image = image.resize(middle, Image.Resampling.BICUBIC, box=(x - half, y - half, x + half, y + half))
    scaled = (np.asarray(image, np.float32) / 255.0 - np.array(known.mean, np.float32)) / np.array(
        known.deviation, np.float32
    )
    return np.ascontiguousarray(scaled.transpose(2, 0, 1), np.float32)
