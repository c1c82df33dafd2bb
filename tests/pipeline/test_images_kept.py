"""Images in a night: their vectors stand beside those of the texts, and the next time none is read again."""

import json
import os

import polars as pl
import pytest
from PIL import Image
from safetensors.torch import save

from sparkrec.prepare.image_networks import EfficientNetLite0

pytestmark = pytest.mark.slow
LONG_AGO = 1_600_000_000


def test_a_night_that_runs_again_reads_no_image(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    titles = sorted(t for t in place.table("items")["title"].drop_nulls().unique() if "/" not in t)
    for n, title in enumerate(titles[:2]):
        Image.new("RGB", (300, 260), (90 * n, 200, 40)).save(tmp_path / title, "PNG")
        os.utime(tmp_path / title, (LONG_AGO, LONG_AGO))
    weights = tmp_path / "drawn.safetensors"
    weights.write_bytes(save({name: w.contiguous() for name, w in EfficientNetLite0().state_dict().items()}))
    settings = [f"prepare.image.{key}" for key in ("column=title", f"folder={tmp_path}", f"weights={weights}")]
    found = []
    for _ in range(2):
        assert place.run(spark, place.last, *settings, only=("prepare",), force=True) == 0
        runs = place.table("runs").filter((pl.col("stage") == "prepare") & (pl.col("status") == "done"))
        told = json.loads(runs.sort("ended_at")["message"][-1])["item_vectors"]
        vectors = place.table("item_vectors").filter(pl.col("name") == "image_efficientnet_lite0")
        assert vectors.height == place.table("items").filter(pl.col("title").is_in(titles[:2])).height >= 2
        found.append((told["images_read"], told["images_kept"], vectors.sort("item_idx").rows()))
        assert place.table("image_vectors").height == 2
    assert [one[:2] for one in found] == [(2, 0), (0, 2)]
    assert found[0][2] == found[1][2]
