"""The two-tower model: hand-computed losses, padding, unknown users, the score as one dot product."""

import dataclasses
import math

import pytest
import torch

from sparkrec.models.two_tower.network import (
    PAD,
    Feature,
    ItemBatch,
    TowerShape,
    TwoTower,
    UserBatch,
    log_expected_count,
    new_table,
    sampled_softmax_,
    second_loss,
)

SHAPE = TowerShape(
    n_users=4,
    n_items=5,
    dim=8,
    hidden=(6,),
    user_features=(Feature("country", 3, 1),),
    item_features=(Feature("genre", 4, 2), Feature("brand", 2, 1)),
    windows_days=(1.0, 7.0),
    history_length=3,
    temperature=0.5,
)


def table_and_model(shape=SHAPE):
    torch.manual_seed(3)
    table = torch.randn(shape.n_rows, shape.dim)
    model = TwoTower(shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.5)
    return table, model


def users(user, history, days=None, codes=None, shape=SHAPE):
    history = torch.tensor(history)
    codes = torch.zeros(len(user), 1, dtype=torch.long) if codes is None else torch.tensor(codes)
    return UserBatch(
        user=shape.id_rows("user", torch.tensor(user)),
        history=shape.id_rows("item", history),
        history_days=torch.zeros(history.shape) if days is None else torch.tensor(days),
        codes=shape.code_rows("user", codes),
        numeric=torch.zeros(len(user), 3),
    )


def test_loss_by_hand_with_log_q_and_accidental_hits():
    # Draws of the batch: items a, b, a. Candidates are distinct: a twice, b once.
    scores = torch.tensor([[1.0, 2.0], [0.5, -1.0], [0.0, 3.0]])
    target = torch.tensor([0, 1, 0])
    q = torch.tensor([2.0, 1.0])  # expected draws
    loss = sampled_softmax_(scores.clone(), target, torch.tensor([2.0, 1.0]), q.log())
    # Row 0 has a: the other a is an accidental hit and masked, b is a negative. Row 1 has b: two negatives a.
    e = math.exp
    expected = [
        -math.log(e(1.0) / 2 / (e(1.0) / 2 + e(2.0))),
        -math.log(e(-1.0) / (e(-1.0) + 2 * e(0.5) / 2)),
        -math.log(e(0.0) / 2 / (e(0.0) / 2 + e(3.0))),
    ]
    torch.testing.assert_close(loss, torch.tensor(expected))


def test_loss_and_gradient_equal_one_column_for_each_draw():
    torch.manual_seed(0)
    item = torch.tensor([3, 1, 3, 0, 1, 3])
    z, v, log_q = torch.randn(6, 4), torch.randn(5, 4), torch.randn(5)
    candidates, count = item.unique(return_counts=True)
    scores = (z @ v[candidates].T).requires_grad_()
    target = torch.searchsorted(candidates, item)
    columns = scores[:, target] - log_q[item]
    hit = (item[:, None] == item[None, :]) & ~torch.eye(6, dtype=torch.bool)
    expected = torch.nn.functional.cross_entropy(
        columns.masked_fill(hit, float("-inf")), torch.arange(6), reduction="none"
    )
    expected.sum().backward()
    found = scores.detach().clone()
    losses = sampled_softmax_(found, target, count.float(), log_q[candidates])
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(found, scores.grad)


def test_hidden_candidates_are_no_negatives_and_the_target_stays():
    scores = torch.tensor([[1.0, 2.0, 0.5]])
    zero, one = torch.zeros(3), torch.ones(3)
    hidden = torch.tensor([[False, True, False]])
    loss = sampled_softmax_(scores.clone(), torch.tensor([0]), one, zero, hidden)
    assert loss.item() == pytest.approx(-math.log(math.exp(1.0) / (math.exp(1.0) + math.exp(0.5))))


def test_expected_count_adds_batch_and_uniform_draws():
    found = log_expected_count(torch.tensor([0.5, 0.0]), 8, 0.25)
    torch.testing.assert_close(found, torch.tensor([4.25, 0.25]).log())


def test_padding_has_no_influence():
    table, model = table_and_model()
    alone = users([0], [[2, 1]], [[3.0, 4.0]])
    padded = users([0], [[2, 1, PAD]], [[3.0, 4.0, 999.0]])
    torch.testing.assert_close(model.query(table, padded), model.query(table, alone))
    codes = torch.tensor([[2, 0, 1]])
    item = ItemBatch(SHAPE.id_rows("item", torch.tensor([1])), SHAPE.code_rows("item", codes))
    twice = item._replace(codes=SHAPE.code_rows("item", torch.tensor([[2, 2, 1]])))
    torch.testing.assert_close(model.items(table, item), model.items(table, twice))  # a mean over the known codes


def test_order_of_codes_and_features_lie_in_their_own_rows():
    rows = SHAPE.code_rows("item", torch.tensor([[4, 0, 1], [5, 1, 3]]))
    first_genre, first_brand = SHAPE.segments["item.genre"][0], SHAPE.segments["item.brand"][0]
    expected = [[first_genre + 3, PAD, first_brand], [PAD, first_genre, PAD]]  # codes beyond the table are unknown
    assert rows.tolist() == expected
    assert SHAPE.n_rows == 4 + 5 + 3 + 4 + 2


def test_unknown_users_are_told_apart_by_features_and_history():
    table, model = table_and_model()
    batch = users([99, 99, 99, PAD], [[PAD], [PAD], [3], [3]], codes=[[1], [2], [1], [1]])
    vectors = model.query(table, batch)
    assert torch.isfinite(vectors).all()
    assert not torch.allclose(vectors[0], vectors[1])
    assert not torch.allclose(vectors[0], vectors[2])
    torch.testing.assert_close(vectors[2], vectors[3])  # beyond the table is the same as unknown


def test_recent_items_weigh_more_with_decay():
    table, model = table_and_model()
    with torch.no_grad():
        model.decay.fill_(5.0)
    mixed = model.query(table, users([0], [[2, 1]], [[0.0, 1000.0]]))
    recent = model.query(table, users([0], [[2]], [[0.0]]))
    torch.testing.assert_close(mixed, recent, atol=1e-4, rtol=1e-4)


def test_attention_begins_as_the_mean_and_then_asks_for_what_fits():
    shape = dataclasses.replace(SHAPE, history_pooling="attention")
    table, model = table_and_model(shape)
    _, plain = table_and_model()
    plain.load_state_dict({k: v for k, v in model.state_dict().items() if k != "attention.weight"})
    batch = users([0], [[2, 1, PAD]], [[3.0, 1.0, 999.0]])
    torch.nn.init.zeros_(model.attention.weight)
    torch.testing.assert_close(model.query(table, batch), plain.query(table, batch))
    # By hand: softmax of <A z, h_j> / sqrt(dim) - decay * ln(1 + age), over the two that there are.
    torch.nn.init.normal_(model.attention.weight)
    with torch.no_grad():
        recent = table[shape.id_rows("item", torch.tensor([2, 1]))]
        asking = table[0] + model.user_bias
        match = recent @ (model.attention.weight @ asking) / math.sqrt(8)
        share = torch.softmax(match - model.decay * torch.tensor([4.0, 2.0]).log(), 0)
        z = model.user_layers(asking + model.history.weight @ (share @ recent))
        expected = torch.cat([z / (z.square().sum() + 1e-6).sqrt() / 0.5, model.momentum(z)])
        torch.testing.assert_close(model.query(table, batch)[0], expected)
        nobody = users([0], [[PAD, PAD, PAD]])
        assert model.query(table, nobody).isfinite().all()


def test_second_loss_by_hand_leaves_out_what_has_no_label():
    rating = second_loss(torch.tensor([[1.0], [2.0]]), torch.tensor([0.5, math.nan]))
    assert rating.tolist() == [0.25, 0.0]
    scores = torch.tensor([[0.0, math.log(3.0)], [5.0, 5.0]], requires_grad=True)
    kinds = second_loss(scores, torch.tensor([1.0, math.nan]))
    torch.testing.assert_close(kinds.detach(), torch.tensor([math.log(4 / 3), 0.0]))
    kinds.sum().backward()
    assert scores.grad is not None
    assert scores.grad[1].tolist() == [0.0, 0.0]


def test_outputs_are_normalised_and_finite_at_zero():
    table, model = table_and_model()
    z, _ = model.users(table, users([0, 1], [[1], [2]]))
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2), atol=1e-4, rtol=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    block = torch.zeros(SHAPE.n_rows, SHAPE.dim, requires_grad=True)
    model.items(block, ItemBatch(torch.tensor([4]), torch.full((1, 3), PAD))).sum().backward()
    assert torch.isfinite(block.grad).all()


def test_a_users_row_starts_from_nothing():
    table = new_table(SHAPE, torch.Generator().manual_seed(1))
    assert (table[:4] == 0).all()
    assert (table[4:].abs().sum(1) > 0).all()
