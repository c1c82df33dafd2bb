"""Users' sessions one after another: what earlier ones leave behind is what training would have left."""

import dataclasses
from datetime import datetime, timedelta

import numpy as np
import pytest
import torch

from sparkrec.models.gru.choice import build_network
from sparkrec.models.gru.protocol import NO_START, SESSION_START, USER_START, init_parameters, to_tensors
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.states import next_item_ranks, session_states
from sparkrec.ranks.checkpoint import save_model

N_ITEMS, UNTRAINED = 12, {3}
CONFIG = GruConfig(layers=[5, 4], user_units=3, network="hierarchical-all")
# (session, user, start, items), not in order; "old" and "older" are history.
ROWS = [
    ("b", 7, 5, [5, 6, 3, 5]),
    ("a", 7, 4, [9]),  # a single event: leaves nothing behind
    ("c", 7, 6, [2, 1]),
    ("mine", 8, 1, [4, 4, 8]),
    ("nobody", None, 1, [4, 4, 8]),
    ("nobody else", None, 2, [3, 4]),
    ("unknown", 9, 2, [3, 77]),
]
HISTORY = [("older", 7, 1, [3, 10]), ("old", 7, 2, [7, 3, 8, 9]), ("strangers", 5, 1, [1, 2])]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("model"))
    network = build_network(CONFIG, N_ITEMS, {})
    parameters = init_parameters(network, 2)
    for tensor in (*parameters.tables, parameters.flat):
        tensor.normal_(generator=torch.Generator().manual_seed(3))
    counts = torch.tensor([0 if i in UNTRAINED else i + 1 for i in range(N_ITEMS)])
    described = {"n_items": N_ITEMS, "config": dataclasses.asdict(CONFIG)}
    save_model(path, {**to_tensors(network, parameters), "counts": counts}, described)
    return path, network, parameters


def frame(spark, rows):
    begin = datetime(2024, 1, 1)
    rows = [(name, user, begin + timedelta(hours=at), items) for name, user, at, items in rows]
    return spark.createDataFrame(rows, "session_id string, user_idx int, start_ts timestamp, items array<int>")


def known(items):
    return [i for i in items if i < N_ITEMS and i not in UNTRAINED]


def walk(network, parameters, sessions):
    """Vectors after each event of the last session, its user's earlier ones walked as in training before."""
    states, start = [torch.zeros(1, w) for w in network.state_widths], USER_START
    vectors = []
    for items in sessions:
        states_of, vectors = [states], []
        for place, item in enumerate(items):
            flag = torch.tensor([start if place == 0 else NO_START], dtype=torch.int8)
            vector, new = network.advance(parameters, torch.tensor([item]), states_of[-1], flag)
            states_of.append(new)
            vectors.append(vector[0])
        if len(items) > 1:
            states, start = states_of[-2], SESSION_START  # the last event is a target, no input
    return vectors


def expected(model, rows, name):
    user = next(r[1] for r in rows if r[0] == name)
    own = sorted((at, who, items) for who, u, at, items in rows if u == user and (u is not None or who == name))
    until = next(i for i, row in enumerate(own) if row[1] == name)
    return walk(*model[1:], [known(items) for _, _, items in own[: until + 1]])


@pytest.mark.integration
def test_states_carry_the_users_earlier_sessions(spark, model):
    found = session_states(frame(spark, ROWS), model[0], frame(spark, HISTORY)).collect()
    rows = {r["session_id"]: r for r in found}
    assert len(found) == len(rows) == len(ROWS)
    for name, user, _, items in ROWS:
        vectors = expected(model, ROWS + HISTORY, name)
        assert rows[name]["vector"] == pytest.approx(vectors[-1].tolist() if vectors else [0.0] * 4, abs=1e-5), name
        assert (rows[name]["user_idx"], rows[name]["n_known"]) == (user, len(known(items)))
    assert rows["mine"]["vector"] == pytest.approx(rows["nobody"]["vector"], abs=1e-6)
    alone = {r["session_id"]: r["vector"] for r in session_states(frame(spark, ROWS), model[0]).collect()}
    assert alone["mine"] == pytest.approx(rows["mine"]["vector"], abs=1e-6)
    assert np.abs(np.subtract(alone["b"], rows["b"]["vector"])).max() > 1e-3  # without its history


def test_ranks_carry_the_users_earlier_sessions(spark, model):
    _, network, parameters = model
    matrix, bias = network.output(parameters)
    trained = np.array([i not in UNTRAINED for i in range(N_ITEMS)])
    wanted = {}
    for name, _, _, items in ROWS:
        items = known(items)
        for position, vector in enumerate(expected(model, ROWS + HISTORY, name)[:-1], start=1):
            scores = (matrix @ vector + bias).numpy()
            rank = int((scores[trained] >= scores[items[position]] - 1e-5).sum())
            wanted[name, position] = (items[position], rank)
    found = next_item_ranks(frame(spark, ROWS), model[0], history=frame(spark, HISTORY)).collect()
    assert {(r["session_id"], r["position"]): (r["item_idx"], r["rank"]) for r in found} == wanted
    assert len(found) == len(wanted) == 2 + 1 + 2 + 2


@pytest.mark.integration
def test_history_means_nothing_to_other_networks(spark, tmp_path):
    config = dataclasses.replace(CONFIG, network="plain")
    network = build_network(config, N_ITEMS, {})
    weights = {**to_tensors(network, init_parameters(network, 1)), "counts": torch.ones(N_ITEMS, dtype=torch.int64)}
    save_model(str(tmp_path / "m"), weights, {"n_items": N_ITEMS, "config": dataclasses.asdict(config)})
    with_history = next_item_ranks(frame(spark, ROWS), str(tmp_path / "m"), history=frame(spark, HISTORY)).collect()
    without = next_item_ranks(frame(spark, ROWS), str(tmp_path / "m")).collect()
    assert sorted(with_history) == sorted(without)
    assert {r["session_id"] for r in without} == {"b", "c", "mine", "nobody", "nobody else"}
