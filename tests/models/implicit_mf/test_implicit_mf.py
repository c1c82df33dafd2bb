"""Factors learnt by ranking: losses and gradients by hand, what is drawn, on two ranks, and gone on with."""

import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
import torch

from sparkrec.models.implicit_mf import train as ranks
from sparkrec.models.implicit_mf.loss import first_violation, losses, rank_weight
from sparkrec.models.implicit_mf.serve import load_vectors, user_vectors
from sparkrec.models.implicit_mf.settings import ImplicitMfConfig
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.launch import run_ranks
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.sections import TrainConfig
from tests.models.resumed import goes_on

CONFIG = ImplicitMfConfig(dim=4, batch_size=30, epochs=2, reg=0.05, n_negatives=2, learning_rate=0.1)
OTHERS = (
    dataclasses.replace(CONFIG, loss="warp", tries=5, negatives="popularity"),
    dataclasses.replace(CONFIG, loss="hinge", bias=False),
    dataclasses.replace(CONFIG, loss="pointwise"),
)
N_USERS, N_ITEMS = 16, 14


def task_of(config, snapshot="", model="", n_ranks=1, sizes=(N_USERS, N_ITEMS)):
    return ranks.MfTask(
        snapshot_path=snapshot,
        model_path=model,
        config=config,
        train=TrainConfig(ranks=n_ranks, snapshot_files=4, threads_per_rank=1, device="cpu"),
        n_users=sizes[0],
        n_items=sizes[1],
        meta={},
    )


def material(pairs, config=CONFIG, sizes=(N_USERS, N_ITEMS)):
    user, item = (np.array(column, np.int64) for column in zip(*pairs, strict=True))
    files = {0: ranks.Pairs(user, item, np.ones(len(user), np.float32))}
    return ranks.prepare(SingleProcess(), task_of(config, sizes=sizes), files, [len(user)])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_losses_by_hand():
    taken, drawn = torch.tensor([0.5, 1.0]), torch.tensor([[1.0, -2.0], [0.7, 3.0]])
    there = torch.tensor([[True, True], [True, False]])
    found = {kind: losses(kind, taken, drawn, there, 1.0).tolist() for kind in ("bpr", "hinge", "pointwise")}
    assert found["bpr"] == pytest.approx(
        [-(math.log(sigmoid(-0.5)) + math.log(sigmoid(2.5))) / 2, -math.log(sigmoid(0.3))]
    )
    assert found["hinge"] == pytest.approx([(1.5 + 0.0) / 2, 0.7])
    assert found["pointwise"] == pytest.approx(
        [-math.log(sigmoid(0.5)) - (math.log(sigmoid(-1.0)) + math.log(sigmoid(2.0))) / 2,
         -math.log(sigmoid(1.0)) - math.log(sigmoid(-0.7))]
    )  # fmt: skip
    assert losses("bpr", taken, drawn, torch.zeros(2, 2, dtype=torch.bool), 1.0).tolist() == [0.0, 0.0]


def test_warps_rank_is_told_by_the_first_item_that_is_scored_too_high():
    taken, drawn = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([[-1.0, -1.0, 0.1], [2.0, 0.0, 0.0], [0.0, -1.0, 0.0]])
    there = torch.tensor([[True, False, True], [True, True, True], [True, True, True]])
    first, tried = first_violation(taken, drawn, there, 1.0)
    assert first.tolist()[:2] == [2, 0]
    assert tried.tolist() == [2, 1, 0]  # what the user took is no try; a score just a margin below is low enough
    assert rank_weight(tried, 8).tolist() == pytest.approx([1 + 1 / 2 + 1 / 3, sum(1 / r for r in range(1, 8)), 0.0])


@pytest.mark.parametrize("loss", ["bpr", "hinge", "pointwise", "warp"])
def test_gradients_are_those_of_the_loss_and_its_penalty(loss):
    config = dataclasses.replace(CONFIG, loss=loss)
    draws = torch.Generator().manual_seed(1)
    block = torch.randn(9, 5, generator=draws, dtype=torch.float64).requires_grad_()
    place = torch.tensor([[0, 3, 5, 6], [1, 4, 3, 7], [0, 4, 8, 8]])
    there = torch.tensor([[True, True], [True, False], [False, False]])
    factor = torch.tensor([1.5, 0.5, 1.0]) if loss == "warp" else None
    weight = torch.tensor([1.0, 0.5, 2.0])
    batch = ranks.Examples(place[:, 0], place[:, 1], weight, place[:, 2:], there, factor)
    expected = 0.0
    for row, (u, i, *js) in enumerate(place.tolist()):
        mine = [j for j, real in zip(js, there[row].tolist(), strict=True) if real]
        for j in mine:
            x, y = block[u] @ block[i], block[u] @ block[j]
            one = {
                "bpr": -torch.log(torch.sigmoid(x - y)),
                "pointwise": -torch.log(torch.sigmoid(x)) - torch.log(torch.sigmoid(-y)),
            }.get(loss, torch.clamp(1 - x + y, min=0))
            one = one * (factor[row] if factor is not None else 1.0)
            penalty = config.reg / 2 * sum((block[n] ** 2).sum() for n in (u, i, j))
            expected = expected + weight[row] / len(mine) * (one + penalty)
    gradient, _ = ranks.gradients(block.detach(), place, batch, config)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, block)[0])


def test_what_is_drawn_was_not_taken_and_is_popular_where_that_is_asked():
    pairs = [(0, i) for i in range(9)] + [(u, u % 3) for u in range(1, 9)] + [(9, i) for i in range(10)] + [(10, 9)]
    taken = set(pairs)
    for config in (CONFIG, dataclasses.replace(CONFIG, negatives="popularity", ns_exponent=2.0)):
        data = material(pairs, dataclasses.replace(config, n_negatives=40, batch_size=1000), (11, 12))
        batch = ranks.local_batch(data, {0: np.arange(len(pairs))}, 1, 0)
        users = batch.user[:, None].expand_as(batch.drawn)
        for user, item, there in zip(
            users.flatten().tolist(), batch.drawn.flatten().tolist(), batch.there.flatten().tolist(), strict=True
        ):
            assert there == ((user, item) not in taken)
            assert item < 10  # nobody took the others
        assert not batch.there[batch.user == 9].any()  # that user has all there is
        assert batch.there[batch.user != 9].all()
        of_last = Counter(batch.drawn[batch.user == 10].flatten().tolist())
        often = of_last[0] + of_last[1] + of_last[2]
        assert (often > 20) == (config.negatives == "popularity")
        state = ranks.State.new(11, 12, data.config)
        assert ranks.take_step(SingleProcess(), state, data, batch, 0)[2] == 10  # said, not silently left out


def test_two_groups_of_users_are_told_apart():
    pairs = [(u, i) for u in range(N_USERS) for i in range(12) if u % 2 == i % 2 and (u + i) % 5]
    for config in (CONFIG, *OTHERS):
        config = dataclasses.replace(config, epochs=25)
        data = material(pairs, config)
        state = ranks.State.new(N_USERS, N_ITEMS, config)
        for epoch in range(1, config.epochs + 1):
            ranks.run_epoch(SingleProcess(), state, data, epoch)
        scores = (state.table[:N_USERS] @ state.table[N_USERS:].T)[:, :12]
        same = (torch.arange(N_USERS)[:, None] + torch.arange(12)) % 2 == 0
        assert (scores[same].mean() - scores[~same].mean()) > 1.0, config.loss
        assert bool((state.table[N_USERS:, -1] != 0).any()) == config.bias
        assert (state.table[:N_USERS, -1] == 1).all()


def _train_all(comm, tasks):
    return [ranks.train(comm, task) for task in tasks]


@pytest.mark.slow
def test_two_ranks_equal_one_and_a_training_goes_on(spark, tmp_path, one_thread):
    rng = np.random.default_rng(0)
    places = rng.permutation((N_USERS - 1) * (N_ITEMS - 1))[:120].tolist()
    rows = [(p // (N_ITEMS - 1), p % (N_ITEMS - 1), 1.0 + p % 3) for p in places]
    pairs = spark.createDataFrame(rows, "user_idx int, item_idx int, confidence float")
    snapshot = f"{tmp_path}/pairs"
    write_snapshot(
        pairs, snapshot, group="user_idx", order=("user_idx", "item_idx"), n_files=4, inputs={"user_item": 1}
    )
    configs = (CONFIG, *OTHERS)
    ones = [task_of(config, snapshot, f"{tmp_path}/one-{n}") for n, config in enumerate(configs)]
    twos = [task_of(config, snapshot, f"{tmp_path}/two-{n}", 2) for n, config in enumerate(configs)]
    alone = [ranks.train(SingleProcess(), task) for task in ones]
    for histories in run_ranks(spark, _train_all, (twos,), twos[0].train):
        for mine, expected in zip(histories, alone, strict=True):
            assert [e["loss"] for e in mine] == pytest.approx([e["loss"] for e in expected], rel=1e-4)
            assert {e["examples"] for e in mine} == {120}
    for one, two in zip(ones, twos, strict=True):
        expected, found = load_model(one.model_path)[0], load_model(two.model_path)[0]
        for name, tensor in expected.items():
            torch.testing.assert_close(found[name], tensor, atol=1e-3, rtol=1e-2, msg=name)
    goes_on(ranks, ones[0], tmp_path)
    served = load_vectors(ones[0].model_path)
    assert not served.items[-1].any()  # nobody took it
    asked = spark.createDataFrame([(u,) for u in (0, N_USERS - 1, 99)], "user_idx int")
    (known,) = user_vectors(asked, ones[0].model_path).collect()  # one is without pairs, one came later
    assert known["user_idx"] == 0
    assert known["vector"] == pytest.approx(served.users[0].tolist())
