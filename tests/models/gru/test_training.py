"""The GRU's training loop against a plain reference, on one rank and on several, broken off and resumed."""

import dataclasses
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.network import gru_network
from sparkrec.models.gru.protocol import init_parameters, to_tensors
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import Trainer, make_batch
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.sampling import PopularitySampler
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads, random_sessions, reference_train, write_manifest, write_rows

N_ITEMS = 23
SMALL = GruConfig(
    layers=[6, 5], embedding_dim=4, lanes=1, n_sample=9, epochs=2, dropout_embedding=0.0, dropout_hidden=0.0,
    learning_rate=0.1, seed=4,
)  # fmt: skip
LOSSES = ["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"]
MODES = ["constrained", "separate", "none"]
CPU = TrainConfig(device="cpu")


pytestmark = pytest.mark.usefixtures("one_thread")


def train(comm, snapshot, path, config, n_items=N_ITEMS):
    return gru.train(comm, str(snapshot), str(path), config, CPU, n_items, {"night": "x"})


def trained_on(ranks, folder, sessions, config, n_files, slot_bytes=0):
    """Weights, history, of a run on so many ranks, which share memory with slots of this size."""
    manifest = write_rows(folder / f"snapshot{ranks}-{slot_bytes}", sessions, n_files, config.lanes)
    path = folder / f"model{ranks}-{slot_bytes}"
    histories = on_threads(ranks, train, manifest.path, path, config, slot_bytes=slot_bytes)
    weights, described = load_model(str(path))
    assert [h["loss"] for h in described["history"]] == [h["loss"] for h in histories[-1]]
    return weights, histories[0]


@pytest.mark.parametrize(
    ("loss", "mode", "lanes"), [*[(loss, "constrained", 3) for loss in LOSSES], ("bpr-max", "constrained", 1),
    *[(loss, mode, 3) for loss in ("cross-entropy", "bpr-max") for mode in ("separate", "none")]],
)  # fmt: skip
def test_weights_are_those_of_the_plain_reference(tmp_path, loss, mode, lanes):
    """Covers resets, tails with fewer sessions than lanes, Adagrad with momentum, untouched rows."""
    config = dataclasses.replace(SMALL, loss=loss, embedding=mode, lanes=lanes)
    sessions = random_sessions(12, N_ITEMS, seed=1)
    counts = torch.bincount(torch.tensor([x for s in sessions for x in s]), minlength=N_ITEMS)
    sampler = PopularitySampler.from_counts(counts, config.sample_alpha)

    def samples(epoch, step):
        seeded = torch.Generator().manual_seed(2 * (config.seed * 1_000_003 + epoch))
        return sampler.draw((step + 1, config.n_sample), seeded)[step].tolist()

    network = gru_network(config, N_ITEMS)
    initial = to_tensors(network, init_parameters(network, config.seed))
    expected, losses = reference_train(initial, sessions, lanes, samples, config, config.epochs, counts)
    weights, history = trained_on(1, tmp_path, sessions, config, n_files=1)
    assert [h["loss"] for h in history] == pytest.approx(losses, rel=1e-5)
    for name, value in expected.items():
        assert torch.allclose(weights[name], value, atol=2e-5), name
        assert not torch.allclose(value, initial[name], atol=1e-3), name
    assert torch.equal(weights["counts"], counts)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("n_sessions", "lanes", "loss", "mode"),
    [*[(40, 7, loss, "constrained") for loss in LOSSES], (40, 7, "bpr-max", "separate"), (40, 7, "bpr-max", "none"),
     (4, 9, "bpr-max", "constrained")],
)  # fmt: skip
def test_ranks_do_not_change_the_model(tmp_path, n_sessions, lanes, loss, mode):
    """Uneven files, lanes that no number of ranks divides, fewer sessions than lanes, dropout on.

    Where ranks share memory, each updates a part of the one state; with small slots in several messages a step. How
    the ranks meet is tried in every way with the shipped loss, with the others in two that have nothing in common.
    """
    every_way = ((2, 0), (3, 0), (2, 1 << 20), (3, 1 << 20), (2, 512))
    shipped = (n_sessions, loss, mode) == (40, "bpr-max", "constrained")
    config = dataclasses.replace(
        SMALL, lanes=lanes, loss=loss, embedding=mode, dropout_embedding=0.3, dropout_hidden=0.2
    )
    sessions = random_sessions(n_sessions, N_ITEMS, seed=n_sessions)
    expected, history = trained_on(1, tmp_path, sessions, config, n_files=6)
    assert history[0]["events"] == sum(len(s) - 1 for s in sessions)
    for ranks, slot_bytes in every_way if shipped else ((3, 0), (2, 512)):
        weights, other = trained_on(ranks, tmp_path, sessions, config, n_files=6, slot_bytes=slot_bytes)
        assert [h["loss"] for h in other] == pytest.approx([h["loss"] for h in history], rel=1e-5)
        assert [h["steps"] for h in other] == [h["steps"] for h in history]
        for name, value in expected.items():
            assert torch.allclose(weights[name], value, atol=1e-4), name


@pytest.mark.integration
@pytest.mark.parametrize("mode", MODES)
def test_gradients_that_go_back_are_the_same_on_any_number_of_ranks_and_in_any_chunks(tmp_path, monkeypatch, mode):
    config = dataclasses.replace(SMALL, lanes=7, embedding=mode, bptt=3, dropout_embedding=0.3, dropout_hidden=0.2)
    sessions = random_sessions(40, N_ITEMS, seed=40)
    expected, history = trained_on(1, tmp_path, sessions, config, n_files=6)
    sides = ((2, 1 << 20), (3, 0), (3, 512)) if mode == "constrained" else ((2, 512), (3, 0))
    again = [trained_on(ranks, tmp_path, sessions, config, n_files=6, slot_bytes=slot) for ranks, slot in sides]
    monkeypatch.setattr(gru, "_CHUNK_IDS", 1)  # a chunk a step
    (tmp_path / "steps").mkdir()
    again.append(trained_on(1, tmp_path / "steps", sessions, config, n_files=6))
    for weights, other in again:
        assert [h["loss"] for h in other] == pytest.approx([h["loss"] for h in history], rel=1e-5)
        assert all(torch.allclose(weights[name], value, atol=1e-4) for name, value in expected.items())
    (tmp_path / "one").mkdir()
    one, _ = trained_on(1, tmp_path / "one", sessions, dataclasses.replace(config, bptt=1), n_files=6)
    assert not all(torch.allclose(one[name], value, atol=1e-2) for name, value in expected.items())


def test_gradients_do_not_go_back_over_the_start_of_a_session(tmp_path):
    """Sessions of one pair each have nothing to go back to."""
    sessions = [session[:2] for session in random_sessions(30, N_ITEMS, seed=5)]
    found = {}
    for bptt in (1, 4):
        (tmp_path / str(bptt)).mkdir()
        config = dataclasses.replace(SMALL, lanes=4, bptt=bptt)
        found[bptt], _ = trained_on(1, tmp_path / str(bptt), sessions, config, n_files=2)
    assert all(torch.allclose(found[1][name], value, atol=1e-6) for name, value in found[4].items())


def test_random_order_is_the_same_on_any_number_of_ranks_and_new_each_epoch(tmp_path):
    config = dataclasses.replace(SMALL, lanes=5, session_order="random")
    sessions = random_sessions(40, N_ITEMS, seed=3)
    expected, history = trained_on(1, tmp_path, sessions, config, n_files=6)
    weights, other = trained_on(3, tmp_path, sessions, config, n_files=6)
    assert [h["loss"] for h in other] == pytest.approx([h["loss"] for h in history], rel=1e-5)
    assert all(torch.allclose(weights[name], value, atol=1e-4) for name, value in expected.items())
    timed = dataclasses.replace(config, session_order="time")
    (tmp_path / "timed").mkdir()
    _, by_time = trained_on(1, tmp_path / "timed", sessions, timed, n_files=6)
    assert [h["loss"] for h in history] != pytest.approx([h["loss"] for h in by_time], rel=1e-4)
    shuffles = [gru._shuffle(config, epoch, file).permutation(9).tolist() for epoch in (1, 2) for file in (0, 1)]
    assert len({tuple(s) for s in shuffles}) == 4


# ---- warm start ------------------------------------------------------------------------------------------------------


def warm(comm, snapshot, path, config, n_items, earlier):
    return gru.train(comm, str(snapshot), str(path), config, CPU, n_items, {}, str(earlier))


@pytest.mark.parametrize("mode", MODES)
def test_warm_start_goes_on_from_the_earlier_weights(tmp_path, mode):
    """With a learning rate near 0 the trained model is the one it began with, and new items' rows are appended."""
    config = dataclasses.replace(SMALL, lanes=3, embedding=mode)
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    train(SingleProcess(), manifest.path, tmp_path / "earlier", config)
    still = dataclasses.replace(config, learning_rate=1e-12, momentum=0.0, warm_start=True, epochs=1)
    found = []
    for n_new in (0, 1, 4):
        args = (manifest.path, tmp_path / f"m{n_new}", still, N_ITEMS + n_new, tmp_path / "earlier")
        on_threads(1 + n_new % 3, warm, *args)
        found.append(load_model(str(tmp_path / f"m{n_new}")))
    earlier, described = load_model(str(tmp_path / "earlier"))
    for n_new, (weights, told) in zip((0, 1, 4), found, strict=True):
        assert told["warm_start"] == described["weights_sha256"]
        for name, weight in weights.items():
            grown = len(weight) == N_ITEMS + n_new
            assert torch.equal(weight[:N_ITEMS] if grown else weight, earlier[name]), name
            if grown and weight.dim() == 2 and n_new:
                assert weight[N_ITEMS:].abs().min() > 0
                assert torch.equal(weight[N_ITEMS], found[1][0][name][N_ITEMS])  # however many are new
    assert described["warm_start"] is None


def test_a_cold_model_is_not_resumed_warm(tmp_path):
    """The checkpoints of a run that began cold are none of the warm one's."""
    config = dataclasses.replace(SMALL, lanes=3, epochs=4)
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    train(SingleProcess(), manifest.path, tmp_path / "earlier", dataclasses.replace(config, epochs=1))
    with pytest.raises(ConnectionError):
        train(Broken(), manifest.path, tmp_path / "m", config)
    history = warm(SingleProcess(), manifest.path, tmp_path / "m", config, N_ITEMS, tmp_path / "earlier")
    fresh = warm(SingleProcess(), manifest.path, tmp_path / "fresh", config, N_ITEMS, tmp_path / "earlier")
    assert [h["loss"] for h in history] == [h["loss"] for h in fresh]


@pytest.mark.parametrize(
    ("change", "n_items", "error", "says"),
    [
        ({"layers": [6, 4]}, N_ITEMS, UserError, "another shape"),
        ({"embedding": "none"}, N_ITEMS, UserError, "another shape"),
        ({}, N_ITEMS - 1, InvariantError, "the catalogue only"),
    ],
)
def test_an_earlier_model_that_does_not_fit_is_refused(tmp_path, change, n_items, error, says):
    config = dataclasses.replace(SMALL, lanes=3, epochs=1)
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS - 2), 2, 3)
    train(SingleProcess(), manifest.path, tmp_path / "earlier", config)
    other = dataclasses.replace(config, **change)
    with pytest.raises(error, match=says):
        warm(SingleProcess(), manifest.path, tmp_path / "m", other, n_items, tmp_path / "earlier")


class Broken(SingleProcess):
    """A rank that dies in the feed of its third epoch."""

    def __init__(self):
        self.gathers = 0

    def allgather(self, tensor):
        self.gathers += tensor.numel() == 1  # once an epoch: the number of steps
        if self.gathers == 3:
            raise ConnectionError("cut off")
        return super().allgather(tensor)


def test_resume_gives_the_weights_of_an_unbroken_run(tmp_path):
    config = dataclasses.replace(SMALL, lanes=3, epochs=4, dropout_embedding=0.2)
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    whole = train(SingleProcess(), manifest.path, tmp_path / "whole", config)
    with pytest.raises(ConnectionError):
        train(Broken(), manifest.path, tmp_path / "resumed", config)
    assert sorted(p.name for p in (tmp_path / "resumed").iterdir()) == [
        "checkpoint-00001.safetensors",
        "checkpoint-00002.safetensors",
    ]
    with safe_open(tmp_path / "resumed" / "checkpoint-00002.safetensors", "pt") as file:
        broken = json.loads(file.metadata()["sparkrec"])["state"]["history"]
    resumed = train(SingleProcess(), manifest.path, tmp_path / "resumed", config)
    assert [h["loss"] for h in resumed] == [h["loss"] for h in whole]
    assert resumed[:2] == broken  # with their times: these epochs were not trained again
    left, right = (load_model(str(tmp_path / name))[0] for name in ("whole", "resumed"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert not list((tmp_path / "resumed").glob("checkpoint-*"))


def test_another_configuration_does_not_resume(tmp_path):
    config = dataclasses.replace(SMALL, lanes=3, epochs=4)
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    with pytest.raises(ConnectionError):
        train(Broken(), manifest.path, tmp_path / "m", config)
    other = dataclasses.replace(config, learning_rate=0.05)
    fresh = train(SingleProcess(), manifest.path, tmp_path / "fresh", other)
    after = train(SingleProcess(), manifest.path, tmp_path / "m", other)
    assert [h["loss"] for h in after] == [h["loss"] for h in fresh]


def test_lost_rows_are_noticed(tmp_path):
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    name = Path(manifest.path, manifest.files[1].name)
    pq.write_table(pq.read_table(name).slice(3), name)
    with pytest.raises(InvariantError, match="the manifest says"):
        on_threads(2, train, manifest.path, tmp_path / "m", SMALL)


def test_rows_that_moved_to_another_file_are_noticed(tmp_path):
    manifest = write_rows(tmp_path / "s", random_sessions(16, N_ITEMS, longest=1) + [[1, 2]] * 2, 2, 2)
    first, second = (Path(manifest.path, f.name) for f in manifest.files)
    first.write_bytes(second.read_bytes())
    with pytest.raises(InvariantError):
        train(SingleProcess(), manifest.path, tmp_path / "m", SMALL)


def test_a_wrong_number_of_sessions_is_noticed(tmp_path):
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    files = (dataclasses.replace(manifest.files[0], groups=manifest.files[0].groups + 1), manifest.files[1])
    write_manifest(dataclasses.replace(manifest, files=files))
    with pytest.raises(InvariantError, match="pairs seen"):
        train(SingleProcess(), manifest.path, tmp_path / "m", SMALL)


def test_an_item_outside_of_the_catalogue_is_noticed(tmp_path):
    manifest = write_rows(tmp_path / "s", [[0, 1, N_ITEMS]], 1, 1)
    with pytest.raises(InvariantError, match="outside of the catalogue"):
        train(SingleProcess(), manifest.path, tmp_path / "m", SMALL)


def test_nothing_to_train_on_is_said(tmp_path):
    manifest = write_rows(tmp_path / "s", [[0], [1]], 1, 1)
    with pytest.raises(UserError, match="no pair"):
        train(SingleProcess(), manifest.path, tmp_path / "m", SMALL)


def test_divergence_is_said(tmp_path):
    manifest = write_rows(tmp_path / "s", random_sessions(15, N_ITEMS), 2, 3)
    config = dataclasses.replace(SMALL, loss="cross-entropy", learning_rate=1e30)
    with pytest.raises(UserError, match="diverged"):
        train(SingleProcess(), manifest.path, tmp_path / "m", config)


def test_dropout_has_two_rates_of_what_is_dropped():
    config = dataclasses.replace(SMALL, dropout_embedding=0.1, dropout_hidden=0.6, layers=[40, 50])
    trainer = Trainer.create(gru_network(config, 10), config, torch.ones(10, dtype=torch.int64))
    chunk = Chunk(torch.zeros(1, 2000).long(), torch.ones(1, 2000).long(), torch.zeros(1, 2000).char(), [2000])
    batch = make_batch(chunk, 0, torch.zeros(1).long(), torch.arange(2000))
    masks = trainer._masks(batch, torch.Generator().manual_seed(1))
    assert [m.shape[1] for m in masks] == [50, 40, 50]  # the embedding, each layer's output, the last one's too
    for mask, rate in zip(masks, (0.1, 0.6, 0.6), strict=True):
        assert (mask == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
        assert mask.max().item() == pytest.approx(1 / (1 - rate))
