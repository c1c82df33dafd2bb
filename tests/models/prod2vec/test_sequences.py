"""From the tables of baskets and sessions to the snapshot, the model and the lists, on Spark."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.content2vec import train as content2vec
from sparkrec.models.content2vec.settings import Content2VecConfig
from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.models.prod2vec.mllib import fit_mllib, train_mllib
from sparkrec.models.prod2vec.sequences import snapshot_rows
from sparkrec.models.prod2vec.settings import Prod2VecConfig
from sparkrec.ranks.checkpoint import load_model, save_model
from sparkrec.ranks.item_vectors import write_item_vectors
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.retrieval.similar import nearest
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import COPURCHASE, SESSIONS

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
CONFIG = Prod2VecConfig(
    lists="similar", ns_exponent=0.75, dim=6, window=4, epochs=8, learning_rate=0.2, batch_size=128, subsample=0.0
)


def baskets_of(spark, items):
    rows = [(f"b{n:03}", None if n % 3 else n, NOON, some, NOON) for n, some in enumerate(items)]
    return spark.createDataFrame(rows, COPURCHASE.ddl)


@pytest.fixture(scope="module")
def baskets(spark):
    """Items 0 … 5 go together, and 6 … 11; 12 is in a basket of its own, 13 in none."""
    items = [[6 * (n % 2) + (n * (1 + n % 5) + k * k) % 6 for k in range(4)] for n in range(120)]
    return baskets_of(spark, [*items, [12]]).localCheckpoint()


def beside(spark, path, k=3):
    """item → its nearest, in order."""
    lists: dict[int, list[int]] = {}
    vectors, contexts = stored_embeddings(path)
    found = nearest(spark, vectors, k=k, among=contexts).collect()
    for row in sorted(found, key=lambda r: (r["query_idx"], r["rank"])):
        lists.setdefault(row["query_idx"], []).append(row["item_idx"])
    return lists


def test_baskets_become_flat_rows(spark):
    plan = snapshot_rows(baskets_of(spark, [[3, 1], [2]]))
    assert plan.rows.dtypes == [("sequence", "bigint"), ("start", "bigint"), ("position", "int"), ("item", "int")]
    rows = sorted(plan.rows.select("start", "position", "item", "sequence").collect())
    assert [tuple(r)[:3] for r in rows] == [
        (1714564800_000000, 0, 2),
        (1714564800_000000, 0, 3),
        (1714564800_000000, 1, 1),
    ]
    assert rows[1]["sequence"] == rows[2]["sequence"] != rows[0]["sequence"]
    assert (plan.group, plan.order) == ("sequence", ("start", "sequence", "position"))


def test_sessions_become_flat_rows(spark):
    rows = [
        ("s1", 1, NOON, NOON, [4, 4, 2], [NOON] * 3, NOON.date(), None),
        ("s2", None, NOON, NOON, [1], [NOON], NOON.date(), None),
    ]
    plan = snapshot_rows(spark.createDataFrame(rows, SESSIONS.ddl))
    assert sorted((r["position"], r["item"]) for r in plan.rows.collect()) == [(0, 1), (0, 4), (1, 4), (2, 2)]
    assert plan.rows.select("sequence").distinct().count() == 2


@pytest.mark.integration
def test_what_lies_together_in_baskets_is_beside_each_other_in_the_lists(spark, baskets, tmp_path):
    plan = snapshot_rows(baskets)
    where = str(tmp_path / "snapshot")
    manifest = write_snapshot(plan.rows, where, group=plan.group, order=plan.order, n_files=4, inputs={"b": 1})
    assert manifest.groups == 121
    train = TrainConfig(device="cpu", threads_per_rank=1)
    history = run_ranks(spark, prod2vec.train, (where, str(tmp_path / "m"), CONFIG, train, 14, {}), train)[0]
    assert {h["rows_seen"] for h in history} == {manifest.rows}
    found = beside(spark, str(tmp_path / "m"))
    assert sorted(found) == list(range(12))
    assert all({i // 6 for i in items} == {item // 6} for item, items in found.items())
    vectors = [(i, "text", [1.0, i // 6 + 0.1]) for i in range(14)]
    table = spark.createDataFrame(vectors, "item_idx int, name string, vector array<float>")
    assert write_item_vectors(table, where, [], "content2vec.vectors") == ["text"]
    settings = Content2VecConfig(dim=4, hidden=[8], epochs=5, learning_rate=0.05, batch_size=128)
    task = (where, str(tmp_path / "c"), settings, train, 14, {}, str(tmp_path / "m"), ["text"])
    run_ranks(spark, content2vec.train, task, train)
    assert sorted(beside(spark, str(tmp_path / "c"))) == list(range(14))  # all have a text


@pytest.mark.integration
def test_lists_of_what_is_bought_together_are_the_partners_not_their_likes(spark, tmp_path):
    """Each of 0 … 9 is bought with two of 10 … 19, its own and the next: a bolt, and the nuts that fit."""
    pairs = [[n % 10, 10 + (n % 10 + n // 10 % 2) % 10][:: 1 if n % 3 else -1] for n in range(400)]
    plan, where = snapshot_rows(baskets_of(spark, pairs)), str(tmp_path / "snapshot")
    write_snapshot(plan.rows, where, group=plan.group, order=plan.order, n_files=4, inputs={})
    train, found = TrainConfig(device="cpu", threads_per_rank=1), {}
    for lists in ("similar", "bought_together"):
        config = replace(CONFIG, lists=lists, ns_exponent=0.0, epochs=20)
        run_ranks(spark, prod2vec.train, (where, str(tmp_path / lists), config, train, 20, {}), train)
        found[lists] = beside(spark, str(tmp_path / lists), k=2)
    partners = {n: {10 + n, 10 + (n + 1) % 10} for n in range(10)}
    partners |= {10 + n: {n, (n - 1) % 10} for n in range(10)}
    assert {item: set(items) for item, items in found["bought_together"].items()} == partners
    assert not any(set(items) & partners[item] for item, items in found["similar"].items())
    save_model(str(tmp_path / "x"), {"vectors": torch.zeros(2, 2)}, {"n_items": 2, "config": {"lists": lists}})
    with pytest.raises(InvariantError, match="holds no contexts of items"):
        stored_embeddings(str(tmp_path / "x"))


@pytest.mark.integration
def test_mllib_gives_the_same_kind_of_model(spark, baskets, tmp_path):
    config = Prod2VecConfig(lists="similar", dim=6, window=4, epochs=30, seed=3)
    items = train_mllib(baskets, str(tmp_path / "m"), config, 14, {"night": "x"})
    assert items == {"learnt": 12, "without": 2}
    weights, model = load_model(str(tmp_path / "m"))
    assert weights["counts"].tolist()[12:] == [1, 0]
    assert int(weights["counts"].sum()) == 481
    assert (model["model"], model["meta"]) == ("prod2vec", {"night": "x"})
    found = beside(spark, str(tmp_path / "m"))
    assert sorted(found) == list(range(12))
    assert all({i // 6 for i in items} == {item // 6} for item, items in found.items())
    again = fit_mllib(baskets.repartition(3), config, 14)
    assert (again["vectors"] == weights["vectors"]).all()


def test_mllib_says_what_it_cannot_learn_from(spark, baskets):
    with pytest.raises(UserError, match="no pair of items"):
        fit_mllib(baskets_of(spark, [[1], [2]]), CONFIG, 14)
    with pytest.raises(InvariantError, match="outside of the catalogue of 11"):
        fit_mllib(baskets, CONFIG, 11)


def test_no_item_vectors_at_all_is_said(spark, tmp_path):
    for vectors in (None, spark.createDataFrame([], "item_idx int, name string, vector array<float>")):
        with pytest.raises(UserError, match=r"no item vectors of this name: content2vec.vectors=\[\]"):
            write_item_vectors(vectors, str(tmp_path), [], "content2vec.vectors")


def test_a_model_of_another_kind_has_no_item_vectors(tmp_path):
    save_model(str(tmp_path), {"embedding": torch.zeros(2, 2)}, {"n_items": 2})
    with pytest.raises(InvariantError, match="holds no vectors of items"):
        stored_embeddings(str(tmp_path))
