"""Training of the two towers: the step against plain torch, ranks, resuming, learning, and the examples on Spark."""

import dataclasses
import math
from datetime import datetime
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from sparkrec.config import TrainConfig, TwoTowerConfig
from sparkrec.errors import InvariantError, UserError
from sparkrec.models.two_tower import PAD, Feature, ItemBatch, UserBatch
from sparkrec.training.comm import SingleProcess
from sparkrec.training.launch import run_ranks
from sparkrec.training.snapshot import write_snapshot
from sparkrec.training.two_tower import TowerTask, continue_with, save_towers, tower_shape, train, train_epoch
from sparkrec.training.two_tower_batches import lane, last_arrays, sequences
from sparkrec.training.two_tower_examples import (
    GROUP,
    example_order,
    examples,
    feature_layout,
    item_feature_matrix,
    second_outputs,
)
from sparkrec.training.two_tower_loss import known_items
from sparkrec.training.two_tower_step import (
    draw_candidates,
    local_batch,
    new_towers,
    popularity_factor,
    prepare,
    train_step,
    user_batch,
)

AS_OF = 40 * 86_400
CONFIG = TwoTowerConfig(
    dim=8, history_length=4, batch_size=64, epochs=3, learning_rate=0.1, temperature=0.2,
    windows_days=[1.0, 7.0], half_life_days=None, horizon_days=0.0, dropout=0.0, n_sample=0, hidden=[], logq=1.0,
)  # fmt: skip
USER_FEATURES = (Feature("group", 2, 1),)


pytestmark = pytest.mark.usefixtures("one_thread")
ITEM_FEATURES = (Feature("genre", 3, 2),)


def checkerboard(n_users=60, n_items=40, n_events=12, seed=0):
    """Users and items of two groups; a user takes items of the own group."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), n_events)
    taken = [rng.permutation(np.arange(u % 2, n_items, 2))[:n_events] for u in range(n_users)]
    item = np.concatenate(taken)
    ts = rng.integers(0, AS_OF, len(user))
    return user, item, ts


def split(user, item, ts, n_files=4):
    """Whole users to files, as a snapshot has them."""
    files = {}
    for number in range(n_files):
        mine = user % n_files == number
        codes = (user[mine] % 3)[:, None]  # 0: unknown
        label = np.where(item[mine] % 3 == 0, np.nan, user[mine] % 5)
        files[number] = sequences(user[mine], item[mine], ts[mine], 1.0 + (item[mine] % 2), codes, label)
    return files


def item_codes(n_items):
    return np.stack([np.arange(n_items) % 4, np.arange(n_items) % 2], 1).astype(np.int32)


def material(config, user, item, ts, repeats=False):
    n_items = int(item.max()) + 1
    outputs = {"none": 0, "rating": 1, "event_type": 5}[config.second_head]
    shape = tower_shape(config, int(user.max()) + 1, n_items, USER_FEATURES, ITEM_FEATURES, outputs)
    codes = item_codes(n_items)
    return shape, prepare(
        SingleProcess(), split(user, item, ts), 4, shape, config, item_codes=codes, as_of=AS_OF, repeats=repeats
    )


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
    from sparkrec.training.two_tower_batches import dropout_mask
    from sparkrec.training.two_tower_step import ITEM_DROPOUT

    return torch.from_numpy(dropout_mask((config.seed, ITEM_DROPOUT, 0, step), n, config.dim, config.dropout))


def _plain_loss(towers, table, shape, data, batch, config, keep):
    item = torch.from_numpy(batch.item)
    users = user_batch(shape, batch.users, batch.keep, "cpu")
    z, a = towers.dense.users(table, users)
    _, place = item.unique(return_inverse=True)
    rows = ItemBatch(shape.id_rows("item", item), data.item_codes[item], keep[place])
    phi = torch.from_numpy(data.ticks.phi[batch.tick][:, batch.item])
    z_items = towers.dense.items(table, rows)
    scores = z @ z_items.T / config.temperature + torch.einsum("nck,nk->nc", phi, a)
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
        items = torch.cat([items, torch.from_numpy(data.ticks.phi[-1])], 1)
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
    assert (a @ torch.from_numpy(data.ticks.phi[-1]).T).argmax().item() == item.max()
    assert stats["examples"] == 600


def test_settings_out_of_range_are_one_line():
    with pytest.raises(UserError, match=r"two_tower\.temperature"):
        tower_shape(dataclasses.replace(CONFIG, temperature=0.0), 1, 1, (), ())


SCHEMA = "user_idx int, item_idx int, event_type string, ts timestamp, value double, quantity double"
NIGHT = datetime(1970, 2, 10)


def log(spark, user, item, ts):
    frame = pd.DataFrame({"user_idx": user.astype("int32"), "item_idx": item.astype("int32"), "s": ts.astype("int64")})
    return spark.createDataFrame(frame).selectExpr(
        "user_idx", "item_idx", "'buy' AS event_type", "timestamp_seconds(s) AS ts",
        "IF(item_idx % 3 = 0, NULL, double(user_idx % 5)) AS value",
    )  # fmt: skip


def user_table(spark, n):
    code = "IF(id % 3 > 0, array(int(id % 3)), array()) AS group"
    return spark.range(n).selectExpr("int(id) AS user_idx", code)


def test_examples_by_hand(spark):
    day = 86_400
    rows = [
        (1, 10, "buy", datetime(1970, 1, 3), None, None),
        (1, 11, "view", datetime(1970, 1, 2), None, None),
        (2, 10, "buy", datetime(1970, 1, 1, 0, 0, 9), None, None),
        (None, 10, "buy", datetime(1970, 1, 1), None, None),  # anonymous
        (1, 12, "ignored", datetime(1970, 1, 1), None, None),  # no weight
        (1, 12, "unknown", datetime(1970, 1, 1), None, None),
        (1, 12, "buy", datetime(1970, 1, 5), None, None),  # not before the night's end
    ]
    features = spark.createDataFrame(
        [(1, [4, 2, 9], [1]), (3, [7], [])], "user_idx int, town array<int>, group array<int>"
    )
    layout = feature_layout(features, "user_idx", max_width=2)
    assert layout == (Feature("group", 1, 1), Feature("town", 9, 2))
    config = dataclasses.replace(CONFIG, half_life_days=2.0)
    weights = {"buy": 3.0, "view": 1.0, "ignored": 0.0}
    interactions = spark.createDataFrame(rows, SCHEMA)
    found = examples(interactions, features, layout, config, weights, datetime(1970, 1, 5))
    assert found.dtypes[:4] == [("user_idx", "int"), ("item_idx", "int"), ("ts_s", "bigint"), ("weight", "float")]
    assert all(kind == "int" for _, kind in found.dtypes[4:])
    got = sorted(tuple(r) for r in found.collect())
    halved = 3.0 * 0.5 ** ((4 * day - 9) / (2 * day))
    assert [g[:3] + g[4:] for g in got] == [
        (1, 10, 2 * day, 1, 4, 2), (1, 11, day, 1, 4, 2), (2, 10, 9, 0, 0, 0),
    ]  # fmt: skip
    assert [g[3] for g in got] == pytest.approx([1.5, 0.5 * 2**-0.5, halved])


def test_labels_are_the_ratings_or_the_event_types(spark):
    rows = [
        (1, 10, "buy", datetime(1970, 1, 2), 4.5, None),
        (1, 11, "view", datetime(1970, 1, 3), None, None),
        (1, 12, "ignored", datetime(1970, 1, 4), 1.0, None),
    ]
    weights = {"view": 1.0, "buy": 3.0, "ignored": 0.0}
    features, interactions = spark.createDataFrame([(1,)], "user_idx int"), spark.createDataFrame(rows, SCHEMA)

    def labels(head, weights=weights):
        config = dataclasses.replace(CONFIG, second_head=head)
        found = examples(interactions, features, (), config, weights, NIGHT).orderBy("ts_s").collect()
        return second_outputs(config, weights), [row["label"] for row in found]

    outputs, ratings = labels("rating")
    assert (outputs, ratings[0], math.isnan(ratings[1]), len(ratings)) == (1, 4.5, True, 2)
    assert labels("event_type") == (2, [0.0, 1.0])
    with pytest.raises(UserError, match="only one event type counts: buy"):
        labels("event_type", {"buy": 1.0})


def test_item_feature_matrix_by_hand(spark):
    table = spark.createDataFrame([(2, [3, 1]), (0, [])], "item_idx int, genre array<int>")
    layout = feature_layout(table, "item_idx")
    assert layout == (Feature("genre", 3, 2),)
    assert item_feature_matrix(table, layout, 4).tolist() == [[0, 0], [0, 0], [3, 1], [0, 0]]
    bare = table.select("item_idx")
    assert feature_layout(bare, "item_idx") == ()
    assert item_feature_matrix(bare, (), 4).shape == (4, 0)


def make_task(spark, folder, config, n_files=4, train_config=None):
    user, item, ts = checkerboard()
    features = user_table(spark, 60)
    layout = feature_layout(features, "user_idx")
    rows = examples(log(spark, user, item, ts), features, layout, config, {"buy": 1.0}, NIGHT)
    order = example_order(config)
    write_snapshot(rows, f"{folder}/snapshot", group=GROUP, order=order, n_files=n_files, inputs={"interactions": 1})
    return TowerTask(
        snapshot_path=f"{folder}/snapshot",
        model_path=f"{folder}/model",
        config=config,
        train=train_config or TrainConfig(snapshot_files=n_files, threads_per_rank=1, device="cpu"),
        n_users=60,
        n_items=40,
        user_features=layout,
        item_features=ITEM_FEATURES,
        item_codes=item_codes(40),
        as_of=AS_OF,
        repeats=False,
        meta={"model": "two_tower"},
        second_outputs=second_outputs(config, {"buy": 1.0}),
    )


def weights_of(task):
    from sparkrec.training.checkpoint import load_model

    return load_model(task.model_path)


def test_resumed_training_equals_unbroken(spark, tmp_path, monkeypatch):
    import sparkrec.training.two_tower as module

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
    save_towers(str(tmp_path), earlier, item_codes(10), data.ticks.phi[-1], {})
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "warm"),
    [
        (
            {
                "n_sample": 16,
                "history_pooling": "attention",
                "second_head": "rating",
                "second_weight": 1.0,
                "debias": 0.5,
            },
            False,
        ),
        ({"n_sample": 1000}, True),
    ],
)
def test_two_ranks_equal_one(spark, tmp_path, more, warm):
    config = dataclasses.replace(CONFIG, dropout=0.2, horizon_days=1.0, hidden=[6], batch_size=50, **more)
    one = make_task(spark, tmp_path, config)
    if warm:
        earlier = dataclasses.replace(one, model_path=f"{tmp_path}/earlier", config=dataclasses.replace(config, seed=5))
        train(SingleProcess(), earlier)
        one = dataclasses.replace(one, warm_start_path=earlier.model_path)
    two = dataclasses.replace(one, model_path=f"{tmp_path}/two", train=dataclasses.replace(one.train, ranks=2))
    alone = train(SingleProcess(), one)
    first, second = run_ranks(spark, train, (two,), two.train)
    for mine, theirs, expected in zip(first, second, alone, strict=True):
        assert mine["loss"] == theirs["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert mine.get("second_loss", 0.0) == pytest.approx(expected.get("second_loss", 0.0), rel=1e-4)
        assert mine["examples"] == expected["examples"] == 720
    expected, _ = weights_of(one)
    found, _ = weights_of(two)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=2e-3, rtol=1e-2, msg=partial("{}: {}".format, name))


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


@pytest.mark.slow
def test_negatives_are_those_of_all_ranks_or_of_the_own_one(spark):
    together = run_ranks(spark, _candidates_of, (CONFIG,), TrainConfig(ranks=2, threads_per_rank=1, device="cpu"))
    expected = pytest.approx([1.0, 1.0, 2.0, 1.0])  # share of the examples times the five of the batch
    assert together[0] == together[1] == ([0, 1, 2, 3], [1, 1, 2, 1], expected)
    alone = dataclasses.replace(CONFIG, gather_negatives=False)
    apart = run_ranks(spark, _candidates_of, (alone,), TrainConfig(ranks=2, threads_per_rank=1, device="cpu"))
    assert apart[0] == ([0, 1, 2, 3], [1, 1, 0, 0], pytest.approx([0.4, 0.4, 0.8, 0.4]))  # two examples
    assert apart[1] == ([0, 1, 2, 3], [0, 0, 2, 1], pytest.approx([0.6, 0.6, 1.2, 0.6]))
