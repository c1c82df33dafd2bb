"""Networks other than the plain GRU: trained as plain references say, on one rank and several, resumed."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import torch

from sparkrec.errors import InvariantError
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.bloom import BloomNetwork, positions
from sparkrec.models.gru.choice import build_network, by_user, stored_network
from sparkrec.models.gru.lanes import NO_TARGET, walk_lanes
from sparkrec.models.gru.protocol import NO_START, SESSION_START, USER_START, from_tensors, init_parameters, to_tensors
from sparkrec.models.gru.settings import GruConfig
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.sampling import PopularitySampler
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads, random_sessions, write_rows
from tests.models.gru.variant_cases import (
    TYPES,
    Bloom,
    Hierarchical,
    Lstm,
    Parallel,
    Typed,
    random_users,
    reference_walk,
    type_of,
    vectors_of,
    write_users,
    write_vectors,
)

N_ITEMS = 23
CPU = TrainConfig(device="cpu")
SMALL = GruConfig(
    layers=[6, 5], lanes=1, n_sample=9, epochs=3, dropout_embedding=0.0, dropout_hidden=0.0, learning_rate=0.1, seed=4,
    user_units=4, feature_layers=[4, 3],
)  # fmt: skip
PARALLEL = dataclasses.replace(SMALL, network="parallel", features=["text"])
BLOOM = dataclasses.replace(SMALL, bloom_rows=7, bloom_hashes=2)
CASES = {
    "simultaneous": PARALLEL,
    "alternating": dataclasses.replace(PARALLEL, schedule="alternating"),
    "residual": dataclasses.replace(PARALLEL, schedule="residual"),
    "interleaving": dataclasses.replace(PARALLEL, schedule="interleaving", loss="cross-entropy"),
    "init": dataclasses.replace(SMALL, network="hierarchical-init"),
    "all": dataclasses.replace(SMALL, network="hierarchical-all", loss="cross-entropy"),
    "lstm": dataclasses.replace(SMALL, cell="lstm"),
    "lstm, separate": dataclasses.replace(SMALL, cell="lstm", embedding="separate", embedding_dim=4),
    "types": dataclasses.replace(SMALL, event_types=True),
    "types, lstm": dataclasses.replace(
        SMALL, event_types=True, cell="lstm", embedding="separate", embedding_dim=4, loss="cross-entropy"
    ),
    "bloom": BLOOM,
    "bloom, one layer": dataclasses.replace(BLOOM, layers=[5], loss="cross-entropy", bloom_hashes=3),
}


pytestmark = pytest.mark.usefixtures("one_thread")


def data(config, n=12, seed=1):
    """Users, each a list of sessions; for networks that do not know of users each with one session."""
    return random_users(n, N_ITEMS, seed) if by_user(config) else [[s] for s in random_sessions(n, N_ITEMS, seed)]


def write(path, config, users, n_files):
    if by_user(config):
        manifest = write_users(path, users, n_files, config.lanes)
    else:
        sessions = [s for user in users for s in user]
        types = [[type_of(item, at) for at, item in enumerate(s)] for s in sessions] if config.event_types else None
        manifest = write_rows(path, sessions, n_files, config.lanes, types=types)
    if config.features:
        write_vectors(path, vectors_of(N_ITEMS))
    return manifest


def train(comm, snapshot, path, config):
    types = TYPES if config.event_types else None
    return gru.train(comm, str(snapshot), str(path), config, CPU, N_ITEMS, {"night": "x"}, event_types=types)


def network_of(config):
    return build_network(config, N_ITEMS, vectors_of(N_ITEMS) if config.features else {}, 1 + len(TYPES))


def reference_of(config):
    if config.features:
        return Parallel(config, vectors_of(N_ITEMS))
    if config.event_types:
        return Typed(config)
    if config.cell == "lstm":
        return Lstm(config)
    return Bloom(config) if config.bloom_rows else Hierarchical(config)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Name of a case → history, weights and description of its training by one process."""

    @cache
    def trained(name):
        config, folder = CASES[name], tmp_path_factory.mktemp("trained")
        manifest = write(folder / "s", config, data(config), 1)
        return train(SingleProcess(), manifest.path, folder / "m", config), *load_model(str(folder / "m"))

    return trained


@pytest.mark.parametrize("name", CASES)
def test_weights_are_those_of_the_plain_reference(trained, name):
    """Also: rows and sub-networks that a step does not train rest, their momentum too."""
    config, users = CASES[name], data(CASES[name])
    counts = torch.bincount(torch.tensor([x for user in users for s in user for x in s]), minlength=N_ITEMS)
    sampler = PopularitySampler.from_counts(counts, config.sample_alpha)

    def samples(epoch, step):
        seeded = torch.Generator().manual_seed(2 * (config.seed * 1_000_003 + epoch))
        return sampler.draw((step + 1, config.n_sample), seeded)[step].tolist()

    network = network_of(config)
    initial = to_tensors(network, init_parameters(network, config.seed))
    expected, losses = reference_walk(reference_of(config), initial, users, samples, config, counts)
    history, weights, described = trained(name)
    assert [h["loss"] for h in history] == pytest.approx(losses, rel=1e-5)
    for key, value in expected.items():
        assert torch.allclose(weights[key], value, atol=2e-5), key
        assert not torch.allclose(value, initial[key], atol=1e-3), key
    assert described["sessions"] == sum(len(user) for user in users)
    if config.features:
        assert described["vectors"]["text"].items() >= {"width": 3, "items": N_ITEMS - 2}.items()


@pytest.mark.parametrize("name", CASES)
def test_ranks_do_not_change_the_model(tmp_path, name):
    config = dataclasses.replace(CASES[name], lanes=7, dropout_embedding=0.3, dropout_hidden=0.2)
    manifest = write(tmp_path / "s", config, data(config, 30), 6)
    train(SingleProcess(), manifest.path, tmp_path / "m1", config)
    expected, described = load_model(str(tmp_path / "m1"))
    on_threads(3, train, manifest.path, tmp_path / "m3", config)
    weights, other = load_model(str(tmp_path / "m3"))
    assert [h["loss"] for h in other["history"]] == pytest.approx([h["loss"] for h in described["history"]], rel=1e-5)
    for key, value in expected.items():
        assert torch.allclose(weights[key], value, atol=1e-4), key


class Epochs(SingleProcess):
    """Counts the epochs that begin, and dies with the one after ``last``."""

    def __init__(self, last=None):
        self.last, self.begun = last, 0

    def allgather(self, tensor):
        self.begun += tensor.numel() == 1  # once an epoch: the number of steps
        if self.last is not None and self.begun > self.last:
            raise ConnectionError("cut off")
        return super().allgather(tensor)


@pytest.mark.parametrize("name", ["residual", "all", "bloom", "lstm", "types"])
def test_resume_gives_the_weights_of_an_unbroken_run(tmp_path, name):
    config = dataclasses.replace(CASES[name], lanes=3, epochs=4, dropout_embedding=0.2)
    manifest = write(tmp_path / "s", config, data(config, 15), 2)
    whole = train(SingleProcess(), manifest.path, tmp_path / "whole", config)
    with pytest.raises(ConnectionError):
        train(Epochs(2), manifest.path, tmp_path / "resumed", config)
    rest = Epochs()
    resumed = train(rest, manifest.path, tmp_path / "resumed", config)
    assert rest.begun == 2  # of four
    assert [h["loss"] for h in resumed] == [h["loss"] for h in whole]
    left, right = (load_model(str(tmp_path / name))[0] for name in ("whole", "resumed"))
    assert all(torch.equal(left[key], right[key]) for key in left)


def test_other_vectors_do_not_resume(tmp_path):
    config = dataclasses.replace(PARALLEL, lanes=3, epochs=4)
    manifest = write(tmp_path / "s", config, data(config, 15), 2)
    with pytest.raises(ConnectionError):
        train(Epochs(2), manifest.path, tmp_path / "m", config)
    write_vectors(manifest.path, {"text": 2 * vectors_of(N_ITEMS)["text"]})
    fresh = train(SingleProcess(), manifest.path, tmp_path / "fresh", config)
    after = train(SingleProcess(), manifest.path, tmp_path / "m", config)
    assert [h["loss"] for h in after] == [h["loss"] for h in fresh]


def test_vectors_that_are_not_one_for_each_item_are_noticed(tmp_path):
    manifest = write(tmp_path / "s", PARALLEL, data(PARALLEL), 1)
    write_vectors(manifest.path, {"text": torch.ones(N_ITEMS + 1, 3)})
    with pytest.raises(InvariantError, match="one for each item"):
        train(SingleProcess(), manifest.path, tmp_path / "m", PARALLEL)


# ---- served as trained -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_a_stored_model_scores_as_the_trained_one(trained, name):
    """Item scores of the loaded model are those of the training's forward pass, step by step over users' sessions."""
    config, users = CASES[name], data(CASES[name])
    _, weights, described = trained(name)
    network = stored_network(described, weights)
    parameters = from_tensors(network, weights)
    matrix, bias = network.output(parameters)
    everything = torch.arange(N_ITEMS)
    score = network.scorer(parameters, everything[3:])
    reference, start_of = reference_of(config), {"user": USER_START, "session": SESSION_START, None: NO_START}
    final = dataclasses.replace(config, schedule="simultaneous")  # of a finished residual training all count
    reference.config = final
    for user in users:
        plain, states, start = None, [torch.zeros(1, k) for k in network.state_widths], "user"
        for at, item in enumerate(x for session in user for x in session):
            expected, plain, _ = reference.step(weights, plain, item, everything, start, 1, 0)
            flag = torch.tensor([start_of[start]], dtype=torch.int8)
            kind = torch.tensor([type_of(item, at)])
            vector, states = network.advance(parameters, torch.tensor([item]), states, flag, kind)
            assert vector.shape == (1, network.dim)
            assert torch.allclose(vector @ matrix.T + bias, expected, atol=1e-5)
            assert torch.allclose(score(vector), expected[:, 3:], atol=1e-5)
            start = "session" if by_user(config) and item % 3 == 0 else None


# ---- Bloom positions -------------------------------------------------------------------------------------------------


def test_positions_are_distinct_uniform_and_the_same_in_each_night():
    found = positions(torch.arange(20_000), 50, 4, seed=1)
    assert found.shape == (20_000, 4)
    assert int(found.min()) == 0
    assert int(found.max()) == 49
    assert all(len(set(row)) == 4 for row in found[:2000].tolist())
    assert torch.equal(found[77:99], positions(torch.arange(77, 99), 50, 4, seed=1))
    assert (found == positions(torch.arange(20_000), 50, 4, seed=2)).float().mean() < 0.05
    share = torch.bincount(found.flatten(), minlength=50) / 20_000
    assert torch.allclose(share, torch.full((50,), 4 / 50), atol=0.01)
    assert len(set(map(tuple, found.sort(1).values.tolist()))) > 19_000  # C(50, 4) = 230,300 sets
    assert positions(torch.tensor([5]), 3, 3, seed=1).sort().values.tolist() == [[0, 1, 2]]


def test_positions_never_change():
    """Numbers of the first release: a model that is stored is read by later code."""
    assert positions(torch.tensor([0, 1, 123456]), 1000, 4, seed=1).tolist() == [
        [757, 419, 939, 394],
        [254, 867, 273, 910],
        [1, 790, 750, 79],
    ]


def test_bloom_weights_are_those_of_its_rows():
    network = network_of(BLOOM)
    assert isinstance(network, BloomNetwork)
    assert [t.n_rows for t in network.tables] == [7, 7]
    rows, bias = network.output(init_parameters(network, 1))
    assert rows.shape == (N_ITEMS, 5)
    assert bias.shape == (N_ITEMS,)


# ---- lanes of users --------------------------------------------------------------------------------------------------


def test_lanes_walk_users_then_their_sessions():
    user = np.array([7, 7, 7, 7, 7, 7, 3, 3, 9, 9, 9])
    session = np.array([1, 1, 1, 2, 4, 4, 5, 5, 8, 8, 8])
    item = np.array([10, 11, 12, 13, 14, 15, 20, 21, 30, 31, 32])
    lanes = walk_lanes(session, item, 2, user=user)
    # 7 takes lane 0: session 1 for two steps, none of session 2, session 4 for one; 3 lane 1, then 9.
    assert lanes.input.tolist() == [[10, 20], [11, 30], [14, 31]]
    assert lanes.target.tolist() == [[11, 21], [12, 31], [15, 32]]
    assert lanes.start.tolist() == [
        [USER_START, USER_START], [NO_START, USER_START], [SESSION_START, NO_START],
    ]  # fmt: skip


def test_rows_of_a_user_apart_are_noticed():
    with pytest.raises(InvariantError, match="user"):
        walk_lanes(np.array([1, 1, 2, 2, 3, 3]), np.arange(6), 2, user=np.array([1, 1, 2, 2, 1, 1]))


@pytest.mark.parametrize("shuffle", [None, np.random.default_rng(1)])
def test_each_pair_once_on_users_lanes(shuffle):
    users = random_users(40, 10_000, seed=5)
    rows = [(u, 100 * u + s, x) for u, user in enumerate(users) for s, items in enumerate(user) for x in items]
    user, session, item = map(np.array, zip(*rows, strict=True))
    lanes = walk_lanes(session, item, 6, shuffle, user)
    t, lane = np.nonzero(lanes.target != NO_TARGET)
    pairs = sorted(zip(lanes.input[t, lane].tolist(), lanes.target[t, lane].tolist(), strict=True))
    same = session[1:] == session[:-1]
    assert pairs == sorted(zip(item[:-1][same].tolist(), item[1:][same].tolist(), strict=True))
    longer = [sum(len(s) > 1 for s in user) for user in users]
    assert (lanes.start == USER_START).sum() == sum(n > 0 for n in longer)
    assert (lanes.start == SESSION_START).sum() == sum(max(0, n - 1) for n in longer)
