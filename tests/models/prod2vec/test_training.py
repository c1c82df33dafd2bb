"""Training prod2vec and Meta-prod2vec: against a plain reference, on several ranks, broken off and resumed."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.prod2vec import train as prod2vec
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.models.prod2vec.pairs import Sequences, keep_probability, walk
from sparkrec.models.prod2vec.settings import MetaProd2VecConfig, Prod2VecConfig
from sparkrec.models.prod2vec.side import Side, side_pairs
from sparkrec.models.prod2vec.skipgram import new_tables
from sparkrec.models.prod2vec.step import DRAWS_A_NEGATIVE, Group, draw_negatives
from sparkrec.models.two_tower.batches import Plan
from sparkrec.models.two_tower.network import Feature
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.feed import read_files
from sparkrec.ranks.snapshot import read_manifest
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads, random_sessions, write_rows

N_ITEMS = 30
SMALL = Prod2VecConfig(
    lists="similar", dim=5, window=3, negatives=2, ns_exponent=0.75, epochs=3, learning_rate=0.2, batch_size=37,
    subsample=0.05, seed=4,
)  # fmt: skip
CPU = TrainConfig(device="cpu")
# Items 0 … 29; the first feature has up to two of three values, the second one of two; 29 has neither.
CODES = np.stack([np.arange(30) % 4, np.arange(30) % 3 % 2 * 3, 1 + np.arange(30) % 2], axis=1).astype(np.int32)
CODES[29] = 0
SIDE = Side((Feature("kind", 3, 2), Feature("brand", 2, 1)), CODES)

pytestmark = pytest.mark.usefixtures("one_thread")


def sequences_of(n=40):
    return random_sessions(n, N_ITEMS - 3, seed=2)  # items 27, 28, 29 are in none


def train(comm, snapshot, path, config=SMALL, side=None, n_items=N_ITEMS):
    return prod2vec.train(comm, str(snapshot), str(path), config, CPU, n_items, {"night": "x"}, side)


def snapshot_of(folder, sequences, n_files=6):
    return write_rows(folder, sequences, n_files, n_files, key="sequence").path


def meta_config(**changes):
    return MetaProd2VecConfig(**{**dataclasses.asdict(SMALL), "side_weight": 0.5, **changes})


def reference(path, config, side):
    """The same steps with dense tables, autograd on the pairs one by one, and one update of every row."""
    manifest = read_manifest(path)
    files = read_files(manifest, 0, 1, ["sequence", "item"])
    counts = torch.bincount(torch.tensor(np.concatenate([f["item"] for f in files.values()])), minlength=N_ITEMS)
    keep = keep_probability(counts.numpy(), config.subsample)
    groups = [Group.of(0, counts, config.ns_exponent)]
    groups += [Group.of(first, n, config.ns_exponent) for first, n in (side.counts(counts) if side else [])]
    tables = new_tables(side.n_rows if side else N_ITEMS, config.dim, config.seed)
    weights = [tables.vectors.requires_grad_(), tables.contexts.requires_grad_()]
    squares = [tables.vector_squares, tables.context_squares]
    losses = []
    for epoch in range(1, config.epochs + 1):
        walks = {
            f: walk(Sequences.of(c["sequence"], c["item"], manifest.files[f].groups), keep, config.window,
                    (config.seed, epoch, f))
            for f, c in files.items()
        }  # fmt: skip
        plan = Plan.of([walks[f].n_pairs for f in range(len(walks))], config.batch_size)
        draws = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
        negatives = draw_negatives(groups, config.negatives, plan.steps, draws)
        total = 0.0
        for step in range(plan.steps):
            parts = [w.pairs(plan.slice(f, step)) for f, w in walks.items()]
            item, context = (np.concatenate([p[n] for p in parts]).astype(np.int64) for n in range(2))
            pairs = [(i, j, 1.0, 0) for i, j in zip(item.tolist(), context.tolist(), strict=True)]
            if side:
                found = side_pairs(side, item, context, config.side_weight)
                pairs = list(zip(*(a.tolist() for a in found), strict=True))
            loss = torch.zeros((), dtype=torch.float64)
            for i, j, weight, group in pairs:
                loss = loss - weight * torch.nn.functional.logsigmoid(weights[0][i] @ weights[1][j])
                for n, row in enumerate(negatives[step].row.tolist()):
                    share = float(negatives[step].share[group, n])
                    if share and row != j:
                        loss = loss - weight * share * torch.nn.functional.logsigmoid(-weights[0][i] @ weights[1][row])
            loss.backward()
            done = (epoch - 1 + step / plan.steps) / config.epochs
            rate = config.learning_rate + (config.min_learning_rate - config.learning_rate) * done
            for w, s in zip(weights, squares, strict=True):
                s += w.grad.square().mean(1)
                with torch.no_grad():
                    w -= rate * w.grad / (s.sqrt() + 1e-10)[:, None]
                w.grad = None
            total += float(loss.detach())
        losses.append(total / sum(plan.examples))
    return weights[0].detach(), weights[1].detach(), squares[0], losses


@pytest.mark.integration
@pytest.mark.parametrize("meta", [False, True])
def test_weights_are_those_of_the_plain_reference(tmp_path, meta):
    config, side = (meta_config(epochs=2), SIDE) if meta else (dataclasses.replace(SMALL, epochs=2), None)
    path = snapshot_of(tmp_path / "snapshot", sequences_of(12))
    vectors, contexts, squares, losses = reference(path, config, side)
    history = train(SingleProcess(), path, tmp_path / "model", config, side)
    weights, model = load_model(str(tmp_path / "model"))
    assert [h["loss"] for h in history] == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(weights["contexts"], contexts[:N_ITEMS], atol=2e-5, rtol=1e-4)
    if meta:
        torch.testing.assert_close(weights["side_vectors"], vectors[N_ITEMS:], atol=2e-5, rtol=1e-4)
    else:
        learnt = squares > 0
        torch.testing.assert_close(weights["vectors"][learnt], vectors[learnt], atol=2e-5, rtol=1e-4)
        assert weights["vectors"][~learnt].abs().sum() == 0
        assert model["items"] == {"learnt": int(learnt.sum()), "by_side": 0, "without": int((~learnt).sum())}


@pytest.mark.parametrize("meta", [False, True])
def test_any_number_of_ranks_gives_the_same_model(tmp_path, meta):
    config, side = (meta_config(), SIDE) if meta else (SMALL, None)
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    train(SingleProcess(), path, tmp_path / "one", config, side)
    expected, described = load_model(str(tmp_path / "one"))
    for ranks in (2, 3):
        histories = on_threads(ranks, train, path, tmp_path / f"m{ranks}", config, side)
        weights, _ = load_model(str(tmp_path / f"m{ranks}"))
        assert weights.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(weights[name], tensor, atol=1e-4, rtol=1e-3)
        for history in histories:
            assert [h["loss"] for h in history] == pytest.approx([h["loss"] for h in described["history"]], rel=1e-5)
            assert {h["rows_seen"] for h in history} == {described["rows"]}


def test_more_ranks_than_sequences_train_all_the_same(tmp_path):
    path = snapshot_of(tmp_path / "snapshot", [[0, 1, 2, 1]], n_files=3)
    train(SingleProcess(), path, tmp_path / "one")
    on_threads(3, train, path, tmp_path / "three")
    (expected, _), (weights, _) = (load_model(str(tmp_path / name)) for name in ("one", "three"))
    torch.testing.assert_close(weights["vectors"], expected["vectors"], atol=1e-5, rtol=1e-4)


def breaks_in_epoch(epoch):
    """A rank 0 of one that fails when the files' pairs are counted for this epoch."""

    class Broken(SingleProcess):
        plans = 0

        def allreduce_sum(self, tensor):
            self.plans += tensor.shape == (6,)
            if self.plans == epoch:
                raise ConnectionError("the other ranks are gone")
            return tensor.detach()

    return Broken()


@pytest.mark.parametrize("meta", [False, True])
def test_resume_gives_the_weights_of_an_unbroken_run(tmp_path, meta):
    config, side = (meta_config(), SIDE) if meta else (SMALL, None)
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    whole = train(SingleProcess(), path, tmp_path / "whole", config, side)
    with pytest.raises(ConnectionError):
        train(breaks_in_epoch(3), path, tmp_path / "resumed", config, side)
    checkpoints = [f"checkpoint-{n:05d}.safetensors" for n in (1, 2)]
    assert sorted(p.name for p in (tmp_path / "resumed").iterdir()) == checkpoints
    resumed = train(SingleProcess(), path, tmp_path / "resumed", config, side)
    assert [h["loss"] for h in resumed] == [h["loss"] for h in whole]
    left, right = (load_model(str(tmp_path / name))[0] for name in ("whole", "resumed"))
    assert all(torch.equal(left[name], right[name]) for name in left)
    assert sorted(p.name for p in (tmp_path / "resumed").iterdir()) == ["model.json", "weights.safetensors"]


def test_ranks_resume_together(tmp_path):
    """Rank 0 alone has the checkpoint."""
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    train(SingleProcess(), path, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(breaks_in_epoch(3), path, tmp_path / "resumed")
    on_threads(2, train, path, tmp_path / "resumed")
    (expected, _), (weights, _) = (load_model(str(tmp_path / name)) for name in ("whole", "resumed"))
    torch.testing.assert_close(weights["vectors"], expected["vectors"], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("change", [{"learning_rate": 0.1}, {"codes": True}, {"side": None}])
def test_another_task_does_not_resume(tmp_path, change):
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    with pytest.raises(ConnectionError):
        train(breaks_in_epoch(2), path, tmp_path / "m", meta_config(), SIDE)
    side = Side(SIDE.features, np.roll(CODES, 1, axis=0)) if "codes" in change else SIDE
    config = meta_config(**({"learning_rate": 0.1} if "learning_rate" in change else {}))
    side = None if "side" in change else side
    after = train(SingleProcess(), path, tmp_path / "m", config, side)
    fresh = train(SingleProcess(), path, tmp_path / "fresh", config, side)
    assert [h["loss"] for h in after] == [h["loss"] for h in fresh]


def test_lost_rows_are_noticed_in_any_epoch(tmp_path):
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    with pytest.raises(ConnectionError):
        train(breaks_in_epoch(2), path, tmp_path / "m")
    name = Path(path, read_manifest(path).files[1].name)
    table = pq.read_table(name)

    class Loses(SingleProcess):
        """Loses rows after the items are counted."""

        def allreduce_sum(self, tensor):
            if tensor.shape == (N_ITEMS,):
                pq.write_table(table.slice(3), name)
            return tensor.detach()

    with pytest.raises(InvariantError, match="the manifest says"):
        train(Loses(), path, tmp_path / "m")
    pq.write_table(table.take(np.random.default_rng(1).permutation(len(table))), name)
    with pytest.raises(InvariantError, match="sequences stand in"):
        train(SingleProcess(), path, tmp_path / "m")


def test_what_cannot_be_trained_on_is_said(tmp_path):
    alone = snapshot_of(tmp_path / "alone", [[1], [2], [3]], n_files=3)
    with pytest.raises(UserError, match="no pair of items"):
        train(SingleProcess(), alone, tmp_path / "m")
    nothing = snapshot_of(tmp_path / "nothing", [], n_files=3)
    with pytest.raises(UserError, match="no pair of items"):
        train(SingleProcess(), nothing, tmp_path / "m")
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    with pytest.raises(InvariantError, match="outside of the catalogue of 20"):
        train(SingleProcess(), path, tmp_path / "m", n_items=20)
    with pytest.raises(InvariantError, match="of 29 items"):
        train(SingleProcess(), path, tmp_path / "m", meta_config(), Side(SIDE.features, CODES[:29]))
    with pytest.raises(UserError, match="diverged"):
        train(SingleProcess(), path, tmp_path / "m", dataclasses.replace(SMALL, learning_rate=1e30))


def clusters(n=300):
    """Baskets of five of ten items each; three kinds of items."""
    rng = np.random.default_rng(3)
    return [(10 * (k % 3) + rng.permutation(9)[:5]).tolist() for k in range(n)]


def test_items_taken_together_lie_together(tmp_path):
    path = snapshot_of(tmp_path / "snapshot", clusters())
    config = dataclasses.replace(SMALL, epochs=8, batch_size=256, negatives=5)
    train(SingleProcess(), path, tmp_path / "m", config)
    matrix = stored_embeddings(str(tmp_path / "m")).vectors
    assert np.flatnonzero(~matrix.eligible).tolist() == [9, 19, 29]
    found = matrix.vectors / np.maximum(np.linalg.norm(matrix.vectors, axis=1, keepdims=True), 1e-9)
    cosine = found @ found.T
    np.fill_diagonal(cosine, -2)
    kind = np.arange(30) // 10
    rows = matrix.positions()
    assert (kind[cosine[rows].argmax(1)] == kind[rows]).all()


@pytest.mark.parametrize(("baskets", "steps"), [(40, 2), (300, 10), (4000, 100)])
def test_few_pairs_make_small_steps(tmp_path, baskets, steps):
    """Baskets of five have 8 pairs in a window of 1: an epoch takes 100 steps, unless they had less than 256 pairs."""
    path = snapshot_of(tmp_path / "snapshot", clusters(baskets))
    config = dataclasses.replace(SMALL, epochs=1, window=1, batch_size=8192, subsample=0.0)
    (epoch,) = train(SingleProcess(), path, tmp_path / "m", config)
    assert (epoch["pairs"], epoch["steps"]) == (8 * baskets, steps)


def test_an_item_never_bought_is_placed_beside_its_kind(tmp_path):
    path = snapshot_of(tmp_path / "snapshot", clusters())
    codes = (1 + np.arange(30) // 10).astype(np.int32)[:, None]
    codes[29] = 0
    side = Side((Feature("kind", 4, 1),), codes)  # the fourth value is no item's
    train(SingleProcess(), path, tmp_path / "m", meta_config(epochs=8, batch_size=256, negatives=5), side)
    matrix = stored_embeddings(str(tmp_path / "m")).vectors
    assert np.flatnonzero(~matrix.eligible).tolist() == [29]
    cosine = matrix.vectors @ matrix.vectors.T
    for item in (9, 19):
        assert set(np.argsort(-cosine[item])[:10]) == set(range(item - 9, item + 1))
    assert load_model(str(tmp_path / "m"))[1]["items"] == {"learnt": 27, "by_side": 2, "without": 1}


def test_the_pairs_with_side_information_are_those_of_the_paper():
    side = Side((Feature("kind", 3, 2), Feature("brand", 2, 1)), np.array([[1, 0, 2], [3, 1, 0]], dtype=np.int32))
    assert [r.tolist() for r in side.rows] == [[[2, -1], [4, 2]], [[6], [-1]]]
    found = side_pairs(side, np.array([0]), np.array([1]), 0.5)
    pairs = sorted(zip(*(a.tolist() for a in found), strict=True))
    assert pairs == sorted([
        (0, 1, 1.0, 0),
        (2, 1, 0.5, 0), (2, 0, 0.5, 0), (6, 1, 0.5, 0), (6, 0, 0.5, 0),  # its kind and brand → context, itself
        (0, 4, 0.25, 1), (0, 2, 0.25, 1),  # itself → the two kinds of the context, half each
        (2, 4, 0.25, 1), (2, 2, 0.25, 1),  # its kind → those
    ])  # fmt: skip
    assert [(first, n.tolist()) for first, n in side.counts(torch.tensor([10, 1]))] == [(2, [11, 0, 1]), (5, [0, 10])]


def test_a_code_beyond_its_feature_is_an_error():
    with pytest.raises(InvariantError, match="kind: code 4 of 3"):
        _ = Side((Feature("kind", 3, 1),), np.array([[4]], dtype=np.int32)).rows


def test_negatives_are_drawn_by_count_and_weigh_what_they_should():
    counts = torch.tensor([0, 400, 100, 0, 25])
    for exponent in (1.0, -0.5, 0.0):
        groups = [Group.of(0, counts, exponent), Group.of(5, torch.tensor([0, 7]), exponent)]
        found = draw_negatives(groups, 5, 200, torch.Generator().manual_seed(1))
        share = torch.zeros(2, 7)
        for n in found:
            assert (np.diff(n.row) > 0).all()
            share[:, n.row] += torch.from_numpy(n.share)
        expected = torch.where(counts > 0, counts.double() ** exponent, 0.0)
        torch.testing.assert_close(share[0, :5] / 200, (5 * expected / expected.sum()).float(), atol=0.06, rtol=0.05)
        assert share[1].tolist() == [0, 0, 0, 0, 0, 0, 1000]
    assert DRAWS_A_NEGATIVE * 5 == 160
    nothing = draw_negatives([groups[1], Group.of(7, torch.tensor([0]), 1.0)], 1, 1, torch.Generator())[0]
    assert nothing.row.tolist() == [6]
    assert nothing.share.tolist() == [[1.0], [0.0]]


def test_the_model_says_what_it_was_made_of(tmp_path):
    path = snapshot_of(tmp_path / "snapshot", sequences_of())
    history = train(SingleProcess(), path, tmp_path / "m", meta_config(), SIDE)
    weights, model = load_model(str(tmp_path / "m"))
    assert model["model"] == "meta_prod2vec"
    assert model["meta"] == {"night": "x"}
    assert model["history"] == json.loads(json.dumps(history))
    assert model["rows"] == int(weights["counts"].sum()) == sum(len(s) for s in sequences_of())
    assert model["config"]["side_weight"] == 0.5
    assert weights["contexts"].shape == weights["vectors"].shape == (N_ITEMS, 5)
    assert weights["side_vectors"].shape == (5, 5)
