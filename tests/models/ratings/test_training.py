"""Whole trainings of predicted ratings from snapshots: on two ranks, and gone on with after a fault."""

import dataclasses
from datetime import datetime

import numpy as np
import pytest
import torch

from sparkrec.models.ratings import examples
from sparkrec.models.ratings import train as ranks
from sparkrec.models.ratings.serve import Served
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.two_tower.network import Feature
from sparkrec.ranks.checkpoint import load_model, save_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.sections import TrainConfig
from tests.models.resumed import goes_on

CONFIG = RatingsConfig(
    network="text", dim=4, hidden=[8], words=6, min_df=2, reviews=3, word_dim=4, filters=4, filter_widths=[2],
    batch_size=40, epochs=2, reg=0.1, learning_rate=0.1,
)  # fmt: skip
OTHERS = (
    dataclasses.replace(CONFIG, network="word2vec_mlp", tuned=True, loss="logistic"),
    dataclasses.replace(CONFIG, network="neumf", penalty="priors"),
    dataclasses.replace(CONFIG, network="mf", penalty="priors", posterior="sgld", burn_in=1, samples=2),
)
N_USERS, N_ITEMS = 20, 12
TERMS = ("bad", "poor", "fair", "good", "great")


def tables(spark):
    """Pairs with a rating, and events with texts that tell it, those of unrated pairs among them."""
    rng = np.random.default_rng(0)
    pair = rng.permutation(N_USERS * N_ITEMS)[:150].tolist()
    rated = [(p // N_ITEMS, p % N_ITEMS, float(rng.integers(1, 6))) for p in pair[:120]]
    pairs = spark.createDataFrame(rated, "user_idx int, item_idx int, rating float")
    words = {(u, i): f"A {TERMS[int(r) - 1]}, {TERMS[(u + i) % 5].upper()} thing" for u, i, r in rated}
    unrated = {(p // N_ITEMS, p % N_ITEMS): "unseen words" for p in pair[120:]}
    at = datetime(2024, 1, 1)
    rows = [(f"u{u}", f"i{i}", "review", at, text) for (u, i), text in {**words, **unrated}.items()]
    rows += [("u0", "i0", "review", datetime(2024, 3, 1), "of later on")]
    events = spark.createDataFrame(rows, "user_id string, item_id string, event_type string, ts timestamp, text string")
    indexes = [spark.createDataFrame([(f"{k}{n}", n) for n in range(size)], "id string, idx int") for k, size in (("u", N_USERS), ("i", N_ITEMS))]  # fmt: skip  # noqa: E501
    return pairs, events, indexes


def snapshots(spark, folder):
    pairs, events, indexes = tables(spark)
    words = examples.review_words(events, *indexes, pairs, {"review": 1.0}, datetime(2024, 2, 1), CONFIG)
    numbers = examples.vocabulary(words, CONFIG)
    made = {}
    for name, rows, order in (
        ("pairs", examples.rated(pairs), examples.ORDER),
        ("words", examples.word_rows(words, numbers), examples.WORD_ORDER),
    ):
        write_snapshot(rows, f"{folder}/{name}", group=examples.GROUP, order=order, n_files=4, inputs={"user_item": 1})
        made[name] = f"{folder}/{name}"
    vectors = torch.randn(N_ITEMS, 3, generator=torch.Generator().manual_seed(1))
    save_model(f"{folder}/prod2vec", {"vectors": vectors}, {"n_items": N_ITEMS})
    return made, numbers


def task_of(made, numbers, config, model_path, n_ranks=1):
    return ranks.RatingTask(
        snapshot_path=made["pairs"],
        model_path=model_path,
        config=config,
        train=TrainConfig(ranks=n_ranks, snapshot_files=4, threads_per_rank=1, device="cpu"),
        n_users=N_USERS,
        n_items=N_ITEMS,
        user_features=(Feature("group", 2, 1),),
        item_features=(Feature("kind", 3, 2),),
        user_codes=(np.arange(N_USERS)[:, None] % 3).astype(np.int32),
        item_codes=np.arange(N_ITEMS * 2).reshape(-1, 2).astype(np.int32) % 4,
        meta={},
        words_path=made["words"] if config.network == "text" else None,
        vocabulary=len(numbers),
        item_vectors_path=made["pairs"].replace("pairs", "prod2vec") if config.network == "word2vec_mlp" else None,
    )


def _train_all(comm, tasks):
    return [ranks.train(comm, task) for task in tasks]


@pytest.mark.integration
def test_only_reviews_of_training_pairs_are_read(spark):
    pairs, events, indexes = tables(spark)
    words = examples.review_words(events, *indexes, pairs, {"review": 1.0}, datetime(2024, 2, 1), CONFIG)
    found = {row["term"] for row in words.select("term").distinct().collect()}
    assert found == {"a", "thing", *TERMS}
    numbers = examples.vocabulary(words, dataclasses.replace(CONFIG, vocabulary=3))
    assert list(numbers)[:2] == ["a", "thing"]
    rows = examples.word_rows(words, numbers).collect()
    assert {row["word"] for row in rows} == {1, 2, 3}
    assert max(row["position"] for row in rows) == 3


@pytest.mark.slow
def test_two_ranks_equal_one(spark, tmp_path, one_thread):
    made, numbers = snapshots(spark, tmp_path)
    configs = (CONFIG, *OTHERS)
    ones = [task_of(made, numbers, config, f"{tmp_path}/one-{n}") for n, config in enumerate(configs)]
    twos = [task_of(made, numbers, config, f"{tmp_path}/two-{n}", 2) for n, config in enumerate(configs)]
    alone = [ranks.train(SingleProcess(), task) for task in ones]
    for histories in run_ranks(spark, _train_all, (twos,), twos[0].train):
        for mine, expected in zip(histories, alone, strict=True):
            assert [e["loss"] for e in mine] == pytest.approx([e["loss"] for e in expected], rel=1e-4)
            assert {e["examples"] for e in mine} == {120}
    for one, two in zip(ones, twos, strict=True):
        expected, found = load_model(one.model_path)[0], load_model(two.model_path)[0]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=2e-3, rtol=1e-2, msg=name)
    goes_on(ranks, ones[0], tmp_path)
    served = Served(ones[0].model_path)
    assert served.candidates(3, 1).tolist() == sorted(np.argsort(-served.item_count, kind="stable")[:3])
    assert served.candidates(99, 10**6).tolist() == []
