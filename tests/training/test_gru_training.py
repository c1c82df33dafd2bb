"""The GRU's training loop against a plain reference, on one rank and on several, broken off and resumed."""

import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from gru_cases import on_threads, random_sessions, reference_train, write_manifest, write_rows

from sparkrec.config import GruConfig, TrainConfig
from sparkrec.errors import InvariantError, UserError
from sparkrec.models.gru import gru_network
from sparkrec.models.network import init_parameters, to_tensors
from sparkrec.training import gru
from sparkrec.training.checkpoint import load_model
from sparkrec.training.comm import SingleProcess
from sparkrec.training.gru_step import Trainer, make_batch
from sparkrec.training.lanes import Chunk
from sparkrec.training.sampling import PopularitySampler

N_ITEMS = 23
SMALL = GruConfig(
    layers=[6, 5], embedding_dim=4, lanes=1, n_sample=9, epochs=2, dropout_embedding=0.0, dropout_hidden=0.0,
    learning_rate=0.1, seed=4,
)  # fmt: skip
LOSSES = ["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"]
MODES = ["constrained", "separate", "none"]
CPU = TrainConfig(device="cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def train(comm, snapshot, path, config, n_items=N_ITEMS):
    return gru.train(comm, str(snapshot), str(path), config, CPU, n_items, {"night": "x"})


def trained_on(ranks, folder, sessions, config, n_files):
    """Weights, history, of a run on so many ranks."""
    manifest = write_rows(folder / f"snapshot{ranks}", sessions, n_files, config.lanes)
    path = folder / f"model{ranks}"
    histories = on_threads(ranks, train, manifest.path, path, config)
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


@pytest.mark.parametrize(
    ("n_sessions", "lanes", "loss", "mode"),
    [*[(40, 7, loss, "constrained") for loss in LOSSES], (40, 7, "bpr-max", "separate"), (40, 7, "bpr-max", "none"),
     (4, 9, "bpr-max", "constrained")],
)  # fmt: skip
def test_ranks_do_not_change_the_model(tmp_path, n_sessions, lanes, loss, mode):
    """Uneven files, lanes that no number of ranks divides, fewer sessions than lanes, dropout on."""
    config = dataclasses.replace(
        SMALL, lanes=lanes, loss=loss, embedding=mode, dropout_embedding=0.3, dropout_hidden=0.2
    )
    sessions = random_sessions(n_sessions, N_ITEMS, seed=n_sessions)
    expected, history = trained_on(1, tmp_path, sessions, config, n_files=6)
    assert history[0]["events"] == sum(len(s) - 1 for s in sessions)
    for ranks in (2, 3):
        weights, other = trained_on(ranks, tmp_path, sessions, config, n_files=6)
        assert [h["loss"] for h in other] == pytest.approx([h["loss"] for h in history], rel=1e-5)
        assert [h["steps"] for h in other] == [h["steps"] for h in history]
        for name, value in expected.items():
            assert torch.allclose(weights[name], value, atol=1e-4), name


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
    resumed = train(SingleProcess(), manifest.path, tmp_path / "resumed", config)
    assert [h["loss"] for h in resumed] == [h["loss"] for h in whole]
    assert resumed[0]["seconds"] != whole[0]["seconds"]  # epochs 1 and 2 are those of the broken run
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
