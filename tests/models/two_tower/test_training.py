"""Whole trainings of the two towers: resumed, warm, and on two ranks."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.two_tower.batches import sequences
from sparkrec.models.two_tower.network import PAD, Feature
from sparkrec.models.two_tower.step import draw_candidates, new_towers, prepare
from sparkrec.models.two_tower.train import continue_with, save_towers, tower_shape, train, train_epoch
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.launch import run_ranks
from tests.models.two_tower.cases import (
    AS_OF,
    CONFIG,
    ITEM_FEATURES,
    USER_FEATURES,
    checkerboard,
    item_codes,
    make_task,
    material,
    weights_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.integration
def test_resumed_training_equals_unbroken(spark, tmp_path, monkeypatch):
    import sparkrec.models.two_tower.train as module

    config = dataclasses.replace(CONFIG, n_sample=8, dropout=0.2, horizon_days=1.0)
    whole = make_task(spark, tmp_path, config)
    history = train(SingleProcess(), whole)
    broken = dataclasses.replace(whole, model_path=f"{tmp_path}/broken")

    def stops(comm, towers, data, config, epoch):
        if epoch == 2:
            raise KeyboardInterrupt
        return train_epoch(comm, towers, data, config, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_epoch", stops)
        with pytest.raises(KeyboardInterrupt):
            train(SingleProcess(), broken)
    resumed = train(SingleProcess(), broken)
    assert [h["loss"] for h in resumed] == pytest.approx([h["loss"] for h in history], rel=1e-6)
    expected, model = weights_of(whole)
    found, _ = weights_of(broken)
    assert model["model"] == "two_tower"
    assert len(model["history"]) == 3
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)


def test_a_warm_start_takes_over_what_was_learnt_of_users_items_and_codes(tmp_path):
    user, item, ts = checkerboard(16, 10, 4)
    shape, data = material(CONFIG, user, item, ts)
    earlier = new_towers(shape, 1)
    train_epoch(SingleProcess(), earlier, data, CONFIG, 0)
    earlier.table_squares[shape.segments["item"][0] + 3] = 0.0  # an item that was never learnt
    save_towers(str(tmp_path), earlier, item_codes(10), data.clock.last(), {})
    # Two more users, three more items, a code more: every segment begins elsewhere.
    more = tower_shape(CONFIG, 18, 13, (Feature("group", 3, 1),), (*ITEM_FEATURES, Feature("brand", 4, 1)))
    towers, fresh = new_towers(more, 2), new_towers(more, 2)
    continue_with(towers, str(tmp_path))
    rows = towers.table, earlier.served_table(), fresh.table
    for name, (first, size) in shape.segments.items():
        begin = more.segments[name][0]
        mine, theirs, new = (rows[0][begin : begin + size], rows[1][first : first + size], rows[2][begin:][:size])
        learnt = theirs.abs().sum(1) > 0
        torch.testing.assert_close(mine[learnt], theirs[learnt])
        torch.testing.assert_close(mine[~learnt], new[~learnt])
        after = begin + size, sum(more.segments[name])
        torch.testing.assert_close(rows[0][slice(*after)], rows[2][slice(*after)])
    begin = more.segments["item"][0] + 3
    torch.testing.assert_close(towers.table[begin], fresh.table[begin])
    assert towers.table[begin].abs().sum() > 0
    for mine, theirs in zip(towers.dense.parameters(), earlier.dense.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)
    smaller = new_towers(tower_shape(CONFIG, 18, 9, USER_FEATURES, ITEM_FEATURES), 1)
    with pytest.raises(InvariantError, match="10 rows of item, there are only 9 now"):
        continue_with(smaller, str(tmp_path))
    wider = new_towers(tower_shape(dataclasses.replace(CONFIG, hidden=[5]), 18, 13, USER_FEATURES, ITEM_FEATURES), 1)
    with pytest.raises(UserError, match="another shape"):
        continue_with(wider, str(tmp_path))


def _candidates_of(comm, config):
    """What a rank draws at one step: rank 0 has the items 0 and 1, rank 1 the items 2, 2 and 3."""
    user = np.array([0, 0, 1, 1, 1])
    item = np.array([0, 1, 2, 2, 3])
    ts = np.arange(5) * 86_400
    mine = user == comm.rank
    files = {comm.rank: sequences(user[mine], item[mine], ts[mine], np.ones(mine.sum()), np.zeros((mine.sum(), 1)))}
    shape = tower_shape(config, 2, 4, USER_FEATURES, ITEM_FEATURES)
    data = prepare(comm, files, 2, shape, config, item_codes=item_codes(4), as_of=AS_OF, repeats=True)
    own = torch.from_numpy(files[comm.rank].item.astype(np.int64))
    drawn = comm.allgather(torch.cat([own, torch.full((3 - len(own),), PAD)]))
    candidates, count, log_q = draw_candidates(data, drawn[drawn != PAD], own, config, 0, 0)
    return candidates.tolist(), count.tolist(), log_q.exp().tolist()


def _on_two_ranks(comm, tasks, configs):
    """All that the tests ask two ranks for: to start them takes seconds."""
    return [train(comm, task) for task in tasks], [_candidates_of(comm, config) for config in configs]


BOTH = dataclasses.replace(CONFIG, dropout=0.2, horizon_days=1.0, hidden=[6], batch_size=50)
ATTENTIVE = dataclasses.replace(
    BOTH, n_sample=16, history_pooling="attention", second_head="rating", second_weight=1.0, debias=0.5
)
ALL_NEGATIVES = dataclasses.replace(BOTH, n_sample=1000)
ALONE = dataclasses.replace(CONFIG, gather_negatives=False)


def _begun_with(task, folder):
    """The task, begun with the weights of another training."""
    earlier = dataclasses.replace(task, model_path=f"{folder}/earlier", config=dataclasses.replace(task.config, seed=5))
    train(SingleProcess(), earlier)
    return dataclasses.replace(task, warm_start_path=earlier.model_path)


@pytest.fixture(scope="module")
def two_ranks(spark, tmp_path_factory):
    """The tasks for one rank and for two, and what two ranks made of these and of the draws."""
    first, second = (tmp_path_factory.mktemp("towers") for _ in range(2))
    ones = [make_task(spark, first, ATTENTIVE), _begun_with(make_task(spark, second, ALL_NEGATIVES), second)]
    ranks = dataclasses.replace(ones[0].train, ranks=2)
    twos = [dataclasses.replace(one, model_path=f"{one.model_path}-of-two", train=ranks) for one in ones]
    return ones, twos, run_ranks(spark, _on_two_ranks, (twos, [CONFIG, ALONE]), ranks)


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1], ids=["attentive", "all negatives, warm"])
def test_two_ranks_equal_one(two_ranks, number):
    ones, twos, ranks = two_ranks
    one, two = ones[number], twos[number]
    alone = train(SingleProcess(), one)
    first, second = (histories[number] for histories, _ in ranks)
    for mine, theirs, expected in zip(first, second, alone, strict=True):
        assert mine["loss"] == theirs["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert mine.get("second_loss", 0.0) == pytest.approx(expected.get("second_loss", 0.0), rel=1e-4)
        assert mine["examples"] == expected["examples"] == 720
    expected, _ = weights_of(one)
    found, _ = weights_of(two)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-3, rtol=1e-2, msg=partial("{}: {}".format, name))


@pytest.mark.slow
def test_negatives_are_those_of_all_ranks_or_of_the_own_one(two_ranks):
    together, apart = zip(*(drawn for _, drawn in two_ranks[2]), strict=True)
    expected = pytest.approx([1.0, 1.0, 2.0, 1.0])  # share of the examples times the five of the batch
    assert together[0] == together[1] == ([0, 1, 2, 3], [1, 1, 2, 1], expected)
    assert apart[0] == ([0, 1, 2, 3], [1, 1, 0, 0], pytest.approx([0.4, 0.4, 0.8, 0.4]))  # two examples
    assert apart[1] == ([0, 1, 2, 3], [0, 0, 2, 1], pytest.approx([0.6, 0.6, 1.2, 0.6]))
