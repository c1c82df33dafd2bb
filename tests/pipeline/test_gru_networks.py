"""Each network of the GRU through training, evaluation and publication on the real stack."""

import json
from pathlib import Path

import polars as pl
import pytest

from sparkrec.errors import UserError

pytestmark = pytest.mark.slow

NETWORKS = {
    "parallel": ["gru.network=parallel", "gru.features=[text_word2vec]", "gru.feature_layers=[8]"],
    "hierarchical": ["gru.network=hierarchical-all", "gru.user_units=8"],
    "bloom": ["gru.bloom_rows=20", "gru.bloom_hashes=3"],
    "lstm with types from prod2vec": [
        "models=[gru,prod2vec]",
        "gru.cell=lstm",
        "gru.event_types=true",
        "gru.pretrained=prod2vec",
        "prod2vec.dim=16",
        "prod2vec.epochs=1",
    ],
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_night_publishes_lists_of_each_network(spark, night, tmp_path, name):
    place = night.copied_to(tmp_path / "warehouse")
    settings = ["models=[gru]", "evaluation.refit=false", *NETWORKS[name]]
    typed = "gru.event_types=true" in settings
    if typed:
        settings.append(f"logs.format={returned_in_sessions(tmp_path)}")
    assert place.run(spark, place.last, *settings) == 0
    lists = place.table("topk_gru")
    assert lists["model_version"].n_unique() == 1
    assert lists.height >= 0.9 * 5 * lists["user_id"].n_unique()
    bought = place.table("events").filter(pl.col("event_type") == "purchase").select("user_id", "item_id")
    assert lists.filter(pl.col("key_type") == "user").join(bought, on=["user_id", "item_id"], how="semi").height == 0
    recall = place.table("metrics").filter((pl.col("model") == "gru") & (pl.col("metric") == "recall"))
    assert recall["value"].max() > 0
    model = place.warehouse / "models" / "gru" / place.last.isoformat() / "holdout" / "model.json"
    described = json.loads(model.read_text())
    assert set(described["vectors"]) == ({"text_word2vec"} if name == "parallel" else set())
    types = dict(place.table("feature_index").filter(pl.col("feature") == "event.type").select("value", "idx").rows())
    assert described.get("event_types", {}) == types == ({"cancellation": 1, "purchase": 2} if typed else {})
    begun = place.warehouse / "models" / "prod2vec" / place.last.isoformat() / "holdout" / "model.json"
    assert described["pretrained"] == (json.loads(begun.read_text())["weights_sha256"] if begun.exists() else "")


def returned_in_sessions(folder):
    """The log's format with what was sent back in its sessions, too; its path."""
    known = Path(__file__).parents[2] / "conf" / "formats" / "invoices.yaml"
    path = folder / "invoices.yaml"
    path.write_text(known.read_text().replace("session_events: purchase", "session_events: [purchase, cancellation]"))
    return path


def test_vectors_to_begin_with_that_the_night_does_not_train_are_said(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    with pytest.raises(UserError, match="reads the vectors of prod2vec"):
        place.run(spark, place.last, "models=[gru]", "gru.pretrained=prod2vec")


def test_vectors_that_were_not_made_are_said(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    with pytest.raises(UserError, match="no item vectors of this name"):
        place.run(spark, place.last, "models=[gru]", "gru.network=parallel", "gru.features=[text_tfidf]")
