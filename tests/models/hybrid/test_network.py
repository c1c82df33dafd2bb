"""The network blender: its inputs by hand, spaces turned into one, and training on any number of ranks to serving."""

import dataclasses

import numpy as np
import pytest
import torch

from sparkrec.errors import InvariantError, NothingToTrain, UserError
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.hybrid.joined import Joined, joined, rotation, unit_items
from sparkrec.models.hybrid.network import BlenderNetwork, BlenderShape, new_network
from sparkrec.models.hybrid.serve import NetworkBlender
from sparkrec.models.hybrid.settings import HybridConfig
from sparkrec.models.hybrid.train import BlenderTask, snapshot_columns, train, write_users
from sparkrec.models.scorer import DenseScorer, PopularityScorer
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads

WIDTHS, N_USERS, N_ITEMS = {"a": 3, "b": 2}, 40, 12
CONFIG = HybridConfig(blender="network", hidden=[8], epochs=6, batch_size=64, learning_rate=0.1, dropout=0.1)
rng = np.random.default_rng(5)
ITEMS = {name: rng.normal(size=(N_ITEMS, width)).astype(np.float32) for name, width in WIDTHS.items()}
USERS = {name: rng.normal(size=(N_USERS, width)).astype(np.float32) for name, width in WIDTHS.items()}


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def turned(seed, width):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0].astype(np.float32)


def test_inputs_are_features_cosines_user_item_and_product():
    shape = BlenderShape(1, (2, 1), (1,))
    network = BlenderNetwork(shape)
    assert shape.n_inputs == 1 + 2 + 3 * 3
    with torch.no_grad():
        network.mean.fill_(3.0)
        network.deviation.fill_(2.0)
        network.layers[0].weight.copy_(torch.arange(1.0, 13.0)[None])
        network.layers[0].bias.fill_(0.25)
        network.last.weight.fill_(1.0)
        network.direct.weight.copy_(torch.tensor([[10.0, 100.0, 1000.0]]))
        network.direct.bias.fill_(0.5)
    user, item = torch.tensor([[0.6, 0.8, 1.0]]), torch.tensor([[1.0, 0.0, -1.0]])
    # feature (5 - 3) / 2 = 1; cosines 0.6 and -1; user; item; products 0.6, 0, -1
    inputs = [1, 0.6, -1, 0.6, 0.8, 1, 1, 0, -1, 0.6, 0, -1]
    layer = 0.25 + sum((n + 1) * x for n, x in enumerate(inputs))
    expected = 0.5 + 10 * 1 + 100 * 0.6 - 1000 + max(0.0, layer)
    assert network(torch.tensor([[5.0]]), user, item).item() == pytest.approx(expected, abs=1e-4)


def test_a_rotation_between_two_trainings_is_found_from_the_items_that_both_know():
    turn = turned(1, 3)
    known = unit(ITEMS["a"])
    served = np.concatenate([known @ turn.T, unit(np.ones((2, 3), np.float32))])  # and two that came since
    served[4] = 0
    found, cosine = rotation(served, known)
    assert found == pytest.approx(turn, abs=1e-5)
    assert cosine == pytest.approx(1.0)
    assert found @ found.T == pytest.approx(np.eye(3), abs=1e-5)
    with pytest.raises(InvariantError, match="no one space"):
        rotation(served, ITEMS["b"])


def scorers(spark, turns=None):
    """Two models of vectors, of which b does not know the last user and item, and one that has none."""
    found = {}
    for name, width in WIDTHS.items():
        turn = np.eye(width, dtype=np.float32) if turns is None else turns[name]
        n = N_USERS - (name == "b")
        rows = [(u, (3.0 * USERS[name][u] @ turn.T).tolist()) for u in range(n)]
        eligible = np.arange(N_ITEMS) < N_ITEMS - (name == "b")
        queries = spark.createDataFrame(rows, "user_idx int, vector array<float>")
        found[name] = DenseScorer(queries, ItemMatrix(2 * ITEMS[name] @ turn.T, None, eligible))
    return found | {"popular": PopularityScorer(ItemMatrix(np.zeros((N_ITEMS, 0), np.float32)))}


def test_models_without_vectors_are_left_out_and_refused_where_asked_for(spark):
    mine = scorers(spark)
    assert list(joined(mine, []).items) == ["a", "b"]
    assert joined(mine, ["b"]).widths == (2,)
    assert not unit_items(mine["b"].items)[N_ITEMS - 1].any()
    with pytest.raises(UserError, match=r"no such model of vectors: hybrid.vectors=\['popular'\]"):
        joined(mine, ["popular"])


@pytest.fixture(scope="module")
def planted(spark, tmp_path_factory):
    """Users take what lies near them and far along one axis of ``a``; the rank says nothing."""
    near = unit(USERS["a"]) @ unit(ITEMS["a"]).T + 2 * unit(ITEMS["a"])[:, 0]
    pairs = [(u, i) for u in range(N_USERS) for i in range(N_ITEMS)]
    ranks = np.random.default_rng(2).integers(1, 9, len(pairs)).astype(float).tolist()
    rows = [(u, i, r) for (u, i), r in zip(pairs, ranks, strict=True)]
    frame = spark.createDataFrame(rows, "user_idx int, item_idx int, m_log_rank double")
    truth = [(u, i) for u, i in pairs if near[u, i] > 0 and u % 4]
    taken = spark.createDataFrame(truth, "user_idx int, item_idx int")
    folder = tmp_path_factory.mktemp("planted")
    examples = snapshot_columns(hybrid.labelled(frame, taken), ["m_log_rank"]).cache()
    assert hybrid.counted_hits(examples) == (30 * N_ITEMS, len(truth))
    manifest = write_snapshot(
        examples, str(folder / "s"), group="user_idx", order=("user_idx", "item_idx"), n_files=4, inputs={"x": 1}
    )
    known = joined(scorers(spark), [])
    write_users(known.users, manifest.path)
    return frame, near, manifest.path, known


def task_of(planted, folder, config=CONFIG):
    _, _, path, known = planted
    turns = {name: turned(n, width).T.copy() for n, (name, width) in enumerate(WIDTHS.items())}
    return BlenderTask(
        path, str(folder), config, TrainConfig(device="cpu"), ("m_log_rank",), tuple(known.items), known.widths,
        known.item_matrix(N_ITEMS), turns, {"models": ["a", "b"], "blender": "network"},
    )  # fmt: skip


@pytest.mark.integration
def test_it_learns_from_the_vectors_and_serves_a_later_training_of_the_models(spark, planted, tmp_path):
    """The served models' spaces are turned: by the stored rotations the network finds itself in the one it knows."""
    frame, near, _, _ = planted
    history = train(SingleProcess(), task_of(planted, tmp_path))
    assert history[-1]["loss"] < 0.6 * history[0]["loss"]
    turns = {name: turned(n, width).T for n, (name, width) in enumerate(WIDTHS.items())}
    # What is served is served @ R = known, so served = known @ R^T.
    served = joined(scorers(spark, turns), [])
    blender = NetworkBlender.load(str(tmp_path), served)
    lists = hybrid.blended(blender, frame, ["m_log_rank"], 3).collect()
    assert {(r.user_idx, r["rank"]) for r in lists} == {(u, rank) for u in range(N_USERS) for rank in (1, 2, 3)}
    hits = [near[r.user_idx, r.item_idx] > 0 for r in lists if near[r.user_idx].max() > 0]
    assert np.mean(hits) > 0.9  # also of users that it has not learnt from
    network, weights = blender.network(), blender.vectors
    one = {(r.user_idx, r.item_idx): r.score for r in lists}
    (u, i), score = next((pair, s) for pair, s in one.items() if pair[0] < N_USERS - 1 and pair[1] < N_ITEMS - 1)
    rank = frame.where(f"user_idx = {u} and item_idx = {i}").first()["m_log_rank"]
    both = ((USERS, u), (ITEMS, i))
    mine = [torch.from_numpy(np.concatenate([unit(m[name][n]) for name in WIDTHS]))[None] for m, n in both]
    assert weights.widths == (3, 2)
    feature = torch.tensor([[rank]], dtype=torch.float32)
    assert score == pytest.approx(network(feature, *mine).item(), abs=1e-4)
    astray = [torch.cat([part[:, :3] @ torch.from_numpy(turned(0, 3)), part[:, 3:]], 1) for part in mine]
    assert abs(network(feature, *astray).item() - score) > 0.5  # in another space it says something else


@pytest.mark.integration
def test_ranks_and_resuming_do_not_change_the_network(planted, tmp_path):
    train(SingleProcess(), task_of(planted, tmp_path / "one"))
    alone, described = load_model(str(tmp_path / "one"))
    on_threads(2, train, task_of(planted, tmp_path / "two"))
    both = load_model(str(tmp_path / "two"))[0]
    assert all(torch.allclose(alone[name], both[name], atol=1e-5) for name in alone)

    class Broken(SingleProcess):
        steps = 0

        def allreduce_sum(self, tensor):
            self.steps += 1
            if self.steps > 20:
                raise ConnectionError("cut off")
            return super().allreduce_sum(tensor)

    with pytest.raises(ConnectionError):
        train(Broken(), task_of(planted, tmp_path / "again"))
    history = train(SingleProcess(), task_of(planted, tmp_path / "again"))
    assert [one["loss"] for one in history] == [one["loss"] for one in described["history"]]
    again = load_model(str(tmp_path / "again"))[0]
    assert all(torch.equal(alone[name], again[name]) for name in alone)


@pytest.mark.integration
def test_a_night_without_models_of_vectors_ranks_by_features_alone(spark, planted, tmp_path):
    frame = planted[0]
    bare = dataclasses.replace(
        task_of(planted, tmp_path), models=(), widths=(), items=np.zeros((N_ITEMS, 0), np.float32), rotations={}
    )
    train(SingleProcess(), bare)
    blender = NetworkBlender.load(str(tmp_path), Joined(None, {}))
    assert hybrid.blended(blender, frame, ["m_log_rank"], 2).count() == 2 * N_USERS
    with pytest.raises(InvariantError, match="knows vectors"):
        NetworkBlender.load(str(tmp_path), joined(scorers(spark), []))


def test_nothing_to_learn_from_is_said(spark, planted):
    nobody = spark.createDataFrame([(1, 77)], "user_idx int, item_idx int")
    with pytest.raises(NothingToTrain, match="12 candidates, 0 of them taken"):
        hybrid.counted_hits(hybrid.labelled(planted[0], nobody))


def test_new_weights_depend_on_the_seed_alone():
    shape = BlenderShape(2, (3,), (4,))
    one, same, other = (new_network(shape, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["layers.0.weight"], other["layers.0.weight"])
