"""The networks by hand, and that a pair's own review is never seen."""

import dataclasses

import numpy as np
import pytest
import torch

from sparkrec.models.ratings import train as ranks
from sparkrec.models.ratings.biases import Ratings
from sparkrec.models.ratings.network import Inputs, RatingNetwork, RatingShape, of_reviews
from sparkrec.models.ratings.reviews import Reviews, Side, largest
from sparkrec.models.ratings.serve import Served
from sparkrec.models.ratings.settings import RatingsConfig
from sparkrec.models.two_tower.network import Feature
from sparkrec.ranks.comm import SingleProcess
from sparkrec.settings.sections import TrainConfig

TEXT = RatingsConfig(
    network="text", dim=4, hidden=[8], words=6, reviews=3, word_dim=4, filters=4, filter_widths=[2], batch_size=16,
    epochs=2, hide=0.0, dropout=0.0,
)  # fmt: skip
N_USERS, N_ITEMS, N_WORDS = 12, 8, 9


def inputs(user, item, statistics=()):
    n = len(user)
    no_features, given = torch.zeros(n, 0, len(user[0])), torch.tensor(statistics or [[]] * n)
    return Inputs(torch.tensor(user), torch.tensor(item), no_features, given)


def test_factors_by_hand():
    of = inputs([[1.0, 2.0]], [[3.0, 4.0]])
    assert RatingNetwork(RatingShape("mf", 1, 1, 2))(of).tolist() == [11.0]
    gmf = RatingNetwork(RatingShape("gmf", 1, 1, 2))
    gmf.weights.data = torch.tensor([2.0, 0.5])
    assert gmf(of).tolist() == [2 * 3 + 0.5 * 8]


def test_crosses_by_hand():
    network = RatingNetwork(RatingShape("cross", 1, 1, 1, cross_layers=1, statistics=False))
    network.crosses[0].weight.data = torch.tensor([[1.0, 0.0], [1.0, 1.0]])
    network.crosses[0].bias.data = torch.tensor([0.5, 0.0])
    network.out.weight.data = torch.tensor([[1.0, 10.0, 0.0, 0.0]])
    # x = (2, 3): x ∘ (W x + b) + x = (2 · 2.5 + 2, 3 · 5 + 3)
    assert network(inputs([[2.0]], [[3.0]])).tolist() == [7.0 + 180.0]


@pytest.mark.parametrize("kind", ["mlp", "neumf", "cross"])
def test_networks_with_layers_begin_as_the_biases(kind):
    shape = RatingShape(kind, 3, 3, 2, hidden=(4,), cross_layers=1, statistics=False)
    wide = [[1.0] * shape.width]
    assert RatingNetwork(shape)(inputs(wide, wide)).tolist() == [0.0]


def test_the_largest_values_of_a_filter_stay_in_their_order():
    shape = RatingShape("text", 1, 1, 2, hidden=(2,), vocabulary=4, word_dim=1, filters=1, filter_widths=(1,), k_max=2)
    network = RatingNetwork(shape)
    network.words.weight.data = torch.arange(5.0)[:, None]
    network.filters[0].weight.data, network.filters[0].bias.data = torch.ones(1, 1, 1), torch.zeros(1)
    assert network.reviews(torch.tensor([[1, 4, 2, 3, 0]])).tolist() == [[4.0, 3.0]]
    assert network.reviews(torch.tensor([[3, 1, 4, 0, 0]])).tolist() == [[3.0, 4.0]]
    values = torch.tensor([[1.0, 5.0], [2.0, 0.0]])
    assert of_reviews(values, torch.tensor([[0, 1], [1, -1], [-1, -1]])).tolist() == [[2, 5], [2, 0], [0, 0]]


def test_drawn_reviews_are_the_others_of_the_user():
    side, rng = Side.of(np.array([0, 1, 0, 0, 2]), 4), np.random.default_rng(0)
    drawn = side.draw(np.array([0, 0, 2, 3, 1]), np.array([2, -1, 4, -1, 1]), rng, 200)
    assert [set(row) for row in drawn.tolist()] == [{0, 3}, {0, 2, 3}, {-1}, {-1}, {-1}]


def test_the_largest_without_the_own_review():
    values = np.array([[3.0, 1.0], [2.0, 4.0], [1.0, 2.0]], np.float32)
    found = largest(values, Side.of(np.array([0, 0, 1]), 3), np.array([5, 6, 5]))
    pairs = np.array([0, 0, 0, 1, 2]), np.array([5, 6, 7, 5, 5])
    assert found.without(*pairs).tolist() == [[2, 4], [3, 1], [3, 4], [0, 0], [0, 0]]


def rated(seed=0):
    """Pairs of which each has a review; its words tell the rating: word 1 of 1, word 5 of 5."""
    rng = np.random.default_rng(seed)
    pair = rng.permutation(N_USERS * N_ITEMS)[:60]
    rating = rng.integers(1, 6, 60).astype(float)
    words = np.zeros((60, 6), np.int32)
    words[:, :2] = np.stack([rating, 6 + rng.integers(0, 4, 60)], 1)
    return Ratings(pair // N_ITEMS, pair % N_ITEMS, rating), words


def material(rows, words, config=TEXT, folder="", **more):
    task = ranks.RatingTask(
        "", str(folder), config, TrainConfig(device="cpu"), N_USERS, N_ITEMS, (), (Feature("kind", 3, 2),),
        np.zeros((N_USERS, 0), np.int32), np.arange(N_ITEMS * 2).reshape(-1, 2) % 4, {}, vocabulary=N_WORDS,
    )  # fmt: skip
    reviews = Reviews.of(rows.user, rows.item, words, N_USERS, N_ITEMS) if config.network == "text" else None
    return task, ranks.prepare(SingleProcess(), task, {0: rows}, [len(rows.user)], 0, reviews)


def loss_of_one(data, number):
    """The loss of an example, alone, with fresh weights of which the last are no longer 0."""
    state = ranks.State.new(data, torch.zeros(N_ITEMS, 0))
    torch.nn.init.ones_(state.network.out.weight)
    batch = ranks.examples_of(data, 0, np.array([number]), (1,))
    rows = torch.tensor([[batch.user[0], batch.item[0] + N_USERS, *data.item_codes[batch.item[0]]]])
    return float(ranks.summed_loss(state.network, state.table, rows, None, data, batch).detach())


def seen_by_its_own(rows, words, number):
    """Whether the loss of a pair changes with the words of its own review."""
    other = words.copy()
    other[number] = [9, 8, 7, 6, 5, 4]
    return loss_of_one(material(rows, words)[1], number) != loss_of_one(material(rows, other)[1], number)


def test_a_pairs_own_review_is_never_seen(monkeypatch, one_thread):
    rows, words = rated()
    assert not any(seen_by_its_own(rows, words, number) for number in range(20))
    several = [n for n in range(60) if (rows.user == rows.user[n]).sum() > 1]
    monkeypatch.setattr(Reviews, "own", lambda self, user, item: np.full(len(user), -1))  # the mistake
    assert any(seen_by_its_own(rows, words, number) for number in several[:20])


def test_a_served_pair_is_predicted_without_its_own_review(tmp_path, one_thread):
    rows, words = rated()
    other = words.copy()
    other[7] = [9, 8, 7, 6, 5, 4]
    found = []
    for number, some in enumerate((words, other)):
        task, data = material(rows, some, folder=tmp_path / str(number))
        state = ranks.State.new(data, torch.zeros(N_ITEMS, 0))
        torch.nn.init.ones_(state.network.out.weight)
        ranks.save(task, state, data, [])
        found.append(Served(task.model_path).predict(rows.user, rows.item))
    assert found[0][7] == found[1][7]
    assert (found[0] != found[1]).any()


SHORT = RatingsConfig(dim=4, reg=0.0, epochs=20, batch_size=16, learning_rate=0.1, hide=0.0, dropout=0.1)
FITTED = {
    "mf": {"network": "mf", "reg": 0.01},
    "logistic": {"network": "gmf", "loss": "logistic", "reg": 0.01},
    "nonnegative": {
        "network": "mf",
        "biases": False,
        "nonnegative": True,
        "penalty": "priors",
        "sigma_users": 3.0,
        "sigma_items": 3.0,
    },
    "absolute": {"network": "neumf", "loss": "absolute", "dropout": 0.0},
    "cross": {"network": "cross"},
}


@pytest.mark.parametrize(
    "config", [*(dataclasses.replace(SHORT, **more) for more in FITTED.values()), TEXT], ids=[*FITTED, "text"]
)
def test_training_fits_and_the_folder_predicts(tmp_path, one_thread, config):
    rows, words = rated()
    task, data = material(rows, words, config, tmp_path)
    state = ranks.State.new(data, torch.zeros(N_ITEMS, 0))
    history = [ranks.run_epoch(SingleProcess(), state, data, epoch) for epoch in range(1, config.epochs + 1)]
    assert history[-1]["loss"] < history[0]["loss"]
    ranks.save(task, state, data, history)
    served = Served(str(tmp_path))
    found = served.predict(np.append(rows.user, [-1, 999]), np.append(rows.item, [0, -1]))
    assert np.isfinite(found).all()
    assert ((found >= 1) & (found <= 5)).all()
    if config is not TEXT:
        assert np.mean((found[:-2] - rows.rating) ** 2) < np.var(rows.rating)
    if config.nonnegative:
        assert (state.table >= 0).all()
