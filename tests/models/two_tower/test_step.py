"""Training steps of the two towers: against plain torch on dense tables, by hand, and what they learn."""

import dataclasses

import numpy as np
import pytest
import torch

from sparkrec.errors import UserError
from sparkrec.models.two_tower.batches import lane, last_arrays
from sparkrec.models.two_tower.loss import known_items
from sparkrec.models.two_tower.network import PAD, ItemBatch, UserBatch
from sparkrec.models.two_tower.step import local_batch, new_towers, popularity_factor, train_step, user_batch
from sparkrec.models.two_tower.train import tower_shape, train_epoch
from sparkrec.ranks.comm import SingleProcess
from tests.models.two_tower.cases import AS_OF, CONFIG, checkerboard, material

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.integration
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"history_pooling": "attention", "second_head": "rating", "second_weight": 0.7, "debias": 0.5},
        {"second_head": "event_type", "second_weight": 0.3},
    ],
)
def test_a_step_equals_plain_torch_on_dense_tables(more):
    """The row-wise step against autograd through the whole table and torch's own Adagrad, one column for each draw."""
    user, item, ts = checkerboard(16, 10, 4)
    config = dataclasses.replace(CONFIG, batch_size=20, hidden=[6], dropout=0.25, **more)
    shape, data = material(config, user, item, ts)
    ours, plain = new_towers(shape, 1), new_towers(shape, 1)
    table = plain.table.requires_grad_()
    optimizer = torch.optim.Adagrad([table, *plain.dense.parameters()], lr=config.learning_rate)
    lanes = {n: lane(data.files[n], rows, (1, n), 0.0) for n, rows in data.rows.items()}
    for step in range(data.plan.steps):
        batch = local_batch(lanes, data, config, 0, step)
        keep = _keep_of_candidates(config, len(np.unique(batch.item)), step)
        sums = train_step(SingleProcess(), ours, data, batch, config, 0, step)
        expected, second = _plain_loss(plain, table, shape, data, batch, config, keep)
        optimizer.zero_grad()
        (expected + config.second_weight * second).backward()
        optimizer.step()
        assert sums.loss / sums.weight == pytest.approx(expected.item(), rel=1e-4)
        assert sums.second / sums.weight == pytest.approx(second.item(), rel=1e-4)
    assert sums.labelled < sums.weight
    torch.testing.assert_close(ours.table, table.detach(), atol=1e-5, rtol=1e-4)
    for mine, theirs in zip(ours.dense.parameters(), plain.dense.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


def _keep_of_candidates(config, n, step):
    from sparkrec.models.two_tower.batches import dropout_mask
    from sparkrec.models.two_tower.step import ITEM_DROPOUT

    return torch.from_numpy(dropout_mask((config.seed, ITEM_DROPOUT, 0, step), n, config.dim, config.dropout))


def _plain_loss(towers, table, shape, data, batch, config, keep):
    item = torch.from_numpy(batch.item)
    users = user_batch(shape, batch.users, batch.keep, "cpu")
    z, a = towers.dense.users(table, users)
    _, place = item.unique(return_inverse=True)
    rows = ItemBatch(shape.id_rows("item", item), data.item_codes[item], keep[place])
    every = data.clock.momentum(torch.arange(data.clock.n_days + 1), torch.arange(shape.n_items))
    phi = every[batch.day][:, :, batch.item]
    z_items = towers.dense.items(table, rows)
    scores = z @ z_items.T / config.temperature + torch.einsum("nkc,nk->nc", phi, a)
    n_examples = sum(data.plan.examples)
    share = torch.tensor([sum((data.files[f].item[r] == i).sum() for f, r in data.rows.items()) for i in batch.item])
    corrected = scores - (share / n_examples * len(item)).log()
    own = torch.eye(len(item), dtype=torch.bool)
    history = torch.from_numpy(batch.users.history)
    known = (history[:, :, None] == item[None, None, :]).any(1)
    masked = ((item[:, None] == item[None, :]) | known) & ~own
    losses = -torch.log_softmax(corrected.masked_fill(masked, float("-inf")), dim=1).diagonal()
    weight = 1.0 + item % 2
    if config.debias:
        factor = share[:, None].double() ** -config.debias
        every = [(data.files[f].item[r] == i).sum() for f, r in data.rows.items() for i in data.files[f].item[r]]
        total = torch.tensor([sum((data.files[f].item[r] == i).sum() for f, r in data.rows.items()) for i in range(10)])
        assert len(every) == n_examples
        factor = factor[:, 0] / ((total**-config.debias).nan_to_num(posinf=0.0) * total).sum() * n_examples
        weight = weight * factor.float()
    main = (losses * weight).sum() / weight.sum()
    if config.second_head == "none":
        return main, torch.zeros(())
    everyone = np.concatenate([data.files[f].label[r] for f, r in data.rows.items()])
    label = torch.from_numpy(batch.users.user % 5).float()
    known = item % 3 != 0
    out = towers.dense.second(torch.cat([z, z_items, z * z_items], 1))[known]
    if config.second_head == "rating":
        target = (label[known] - np.nanmean(everyone)) / np.nanstd(everyone)
        second = (out[:, 0] - target) ** 2
    else:
        second = -torch.log_softmax(out, 1)[torch.arange(len(out)), label[known].long()]
    return main, (second * weight[known]).sum() / weight.sum()


def test_rows_that_no_step_touches_stay_and_are_not_served():
    user, item, ts = checkerboard(16, 10, 4)
    keep = item != 3
    shape, data = material(CONFIG, user[keep], item[keep], ts[keep])
    towers = new_towers(shape, 1)
    before = towers.table.clone()
    train_epoch(SingleProcess(), towers, data, dataclasses.replace(CONFIG, n_sample=4), 0)
    row = shape.segments["item"][0] + 3
    torch.testing.assert_close(towers.table[row], before[row])
    assert (towers.served_table()[row] == 0).all()
    assert (towers.served_table()[row + 1] != 0).any()


def test_popular_items_weigh_less_by_hand():
    count = np.array([4, 1, 0])
    np.testing.assert_allclose(popularity_factor(count, 0.5), np.array([0.5, 1.0, 0.0]) / (3 / 5), rtol=1e-6)
    whole = popularity_factor(count, 1.0)
    assert whole[0] * 4 == pytest.approx(whole[1] * 1)  # all items weigh the same
    assert (popularity_factor(count, 0.0)[:2] == 1.0).all()


def test_items_in_the_history_are_hidden_but_not_the_target():
    shape = tower_shape(CONFIG, 2, 9, (), ())
    history = shape.id_rows("item", torch.tensor([[3, 8, PAD], [PAD, PAD, PAD], [5, 2, 2]]))
    hidden = known_items(history, shape, torch.tensor([2, 3, 5, 7]), torch.tensor([0, 1, 2]))
    expected = [[False, True, False, False], [False] * 4, [True, False, False, False]]
    assert hidden.tolist() == expected


@pytest.mark.parametrize("n_sample", [0, 10, 1000])
def test_learns_a_checkerboard(n_sample):
    user, item, ts = checkerboard()
    config = dataclasses.replace(CONFIG, n_sample=n_sample, epochs=12)
    # Features and ids cannot tell: group is unknown to features here, so ids and histories must.
    shape, data = material(config, user, item, ts)
    towers = new_towers(shape, 1)
    losses = [train_epoch(SingleProcess(), towers, data, config, e)["loss"] for e in range(config.epochs)]
    assert losses[-1] < losses[0]
    assert _recall(towers, shape, data, user, item) > 0.97


def _recall(towers, shape, data, user, item, rows=None):
    """Share of each user's best unseen items that are of the own group."""
    n_items = shape.n_items
    with torch.no_grad():
        items = towers.dense.items(
            towers.served_table(), ItemBatch(shape.id_rows("item", torch.arange(n_items)), data.item_codes)
        )
        items = torch.cat([items, torch.from_numpy(data.clock.last())], 1)
        hits = []
        for seq in data.files.values():
            arrays = last_arrays(seq, AS_OF, CONFIG.history_length)
            scores = towers.dense.query(towers.served_table(), user_batch(shape, arrays, None, "cpu")) @ items.T
            for who, row in zip(arrays.user, scores, strict=True):
                row[item[user == who]] = float("-inf")
                best = row.topk(5).indices.numpy()
                hits.append(np.mean(best % 2 == who % 2))
    return float(np.mean(hits))


def test_a_new_user_is_known_by_the_history():
    user, item, ts = checkerboard()
    shape, data = material(CONFIG, user, item, ts)
    towers = new_towers(shape, 1)
    for epoch in range(12):
        train_epoch(SingleProcess(), towers, data, CONFIG, epoch)
    history = torch.tensor([[0, 2, 4, 6], [1, 3, 5, 7]])
    batch = UserBatch(
        user=shape.id_rows("user", torch.tensor([1000, 1000])),
        history=shape.id_rows("item", history),
        history_days=torch.ones(2, 4),
        codes=torch.full((2, 1), PAD),
        numeric=torch.tensor([[0.7, 1.6, 1.0]] * 2),
    )
    with torch.no_grad():
        z, _ = towers.dense.users(towers.served_table(), batch)
        items = towers.dense.items(
            towers.served_table(), ItemBatch(shape.id_rows("item", torch.arange(40)), data.item_codes)
        )
    best = (z @ items.T).topk(8).indices
    assert (best % 2 == torch.tensor([[0], [1]])).float().mean() > 0.9


def test_momentum_is_learnt_when_only_time_tells():
    """In each week another item is taken by everybody: nothing but momentum can tell which."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(300), 2)
    ts = rng.integers(0, AS_OF, 600)
    item = ts // (7 * 86_400)
    shape, data = material(CONFIG, user, item, ts, repeats=True)
    towers = new_towers(shape, 1)
    for epoch in range(6):
        stats = train_epoch(SingleProcess(), towers, data, CONFIG, epoch)
    unseen = UserBatch(
        torch.tensor([PAD]), torch.full((1, 4), PAD), torch.zeros(1, 4), torch.full((1, 1), PAD), torch.zeros(1, 3)
    )
    _, a = towers.dense.users(towers.served_table(), unseen)
    assert (a @ torch.from_numpy(data.clock.last()).T).argmax().item() == item.max()
    assert stats["examples"] == 600


def test_settings_out_of_range_are_one_line():
    with pytest.raises(UserError, match=r"two_tower\.temperature"):
        tower_shape(dataclasses.replace(CONFIG, temperature=0.0), 1, 1, (), ())
