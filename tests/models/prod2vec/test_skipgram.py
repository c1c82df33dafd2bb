"""The loss of skip-gram with shared negatives, its gradient, the update, and the vectors that are served."""

import math

import pytest
import torch
import torch.nn.functional as F

from sparkrec.models.prod2vec import skipgram as prod2vec
from sparkrec.models.prod2vec.skipgram import (
    SIDE_EVENTS,
    Batch,
    Tables,
    adagrad_rows_,
    gradients,
    new_tables,
    served_vectors,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def batch_of(pairs, negatives, n_groups=1, weights=None):
    """Pairs (input, target, group) and negatives (row, share, group)."""
    share = torch.zeros(n_groups, len(negatives))
    for n, (_, part, group) in enumerate(negatives):
        share[group, n] = part
    groups = torch.tensor([p[2] for p in pairs]) if n_groups > 1 else None
    return Batch(
        input=torch.tensor([p[0] for p in pairs], dtype=torch.int64),
        target=torch.tensor([p[1] for p in pairs], dtype=torch.int64),
        weight=None if weights is None else torch.tensor(weights),
        group=groups,
        negative=torch.tensor([n[0] for n in negatives]),
        share=share,
    )


def plain_loss(x, c, pairs, negatives, weights):
    """Equation 4 as one would write it: pair by pair, negative by negative."""
    total = torch.zeros(())
    for (i, j, group), weight in zip(pairs, weights, strict=True):
        total = total - weight * torch.sigmoid(x[i] @ c[j]).log()
        for row, part, of in negatives:
            if of == group and row != j:
                total = total - weight * part * torch.sigmoid(-(x[i] @ c[row])).log()
    return total


CASES = {
    "plain": ([(0, 0, 0), (0, 1, 0), (2, 4, 0), (2, 4, 0)], [(1, 2.0, 0), (3, 0.5, 0)], 1, None),
    "weights": ([(0, 0, 0), (1, 3, 0), (2, 4, 0)], [(1, 2.0, 0), (4, 0.5, 0)], 1, [0.5, 2.0, 0.25]),
    "groups": (
        [(0, 0, 0), (0, 5, 1), (1, 1, 0), (2, 4, 1)], [(1, 1.5, 0), (3, 0.5, 0), (4, 2.0, 1)], 2, [1.0, 0.3, 1.0, 2.0]
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("piece", [2, 1024])
def test_loss_and_gradients_are_those_of_the_equation(name, piece, monkeypatch):
    monkeypatch.setattr(prod2vec, "_PIECE", piece)
    pairs, negatives, n_groups, weights = CASES[name]
    torch.manual_seed(1)
    x, c = torch.randn(3, 7, requires_grad=True), torch.randn(6, 7, requires_grad=True)
    expected = plain_loss(x, c, pairs, negatives, weights or [1.0] * len(pairs))
    expected.backward()
    loss, d_x, d_c = gradients(x.detach(), c.detach(), batch_of(pairs, negatives, n_groups, weights))
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    torch.testing.assert_close(d_x, x.grad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(d_c, c.grad, atol=1e-5, rtol=1e-5)


def test_a_rank_without_pairs_gives_no_gradient():
    loss, d_x, d_c = gradients(torch.zeros(0, 4), torch.ones(2, 4), batch_of([], [(0, 1.0, 0), (1, 1.0, 0)]))
    assert float(loss) == 0
    assert d_x.shape == (0, 4)
    assert torch.equal(d_c, torch.zeros(2, 4))


def test_a_row_moves_by_the_root_of_its_summed_squares():
    table, squares = torch.zeros(4, 2), torch.tensor([0.0, 0.0, 7.0, 0.0])
    rows, gradient = torch.tensor([1, 2]), torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    adagrad_rows_(table, squares, rows, gradient, rate=0.1)
    assert squares.tolist() == [0.0, 12.5, 9.0, 0.0]  # means of the squares: 25 / 2 and 7 + 4 / 2
    step = 0.1 / math.sqrt(12.5)
    torch.testing.assert_close(table[1], torch.tensor([-3 * step, -4 * step]))
    torch.testing.assert_close(table[2], torch.tensor([0.0, -2 * 0.1 / 3]))
    assert table[[0, 3]].abs().sum() == 0


def test_a_row_without_gradient_stays_where_it_is():
    table, squares = torch.ones(2, 2), torch.zeros(2)
    adagrad_rows_(table, squares, torch.tensor([0]), torch.zeros(1, 2), rate=0.1)
    assert torch.equal(table, torch.ones(2, 2))


def test_weights_begin_as_those_of_word2vec():
    tables = new_tables(500, 10, seed=3)
    assert tables.vectors.abs().max() <= 0.05
    assert tables.vectors.abs().max() > 0.049
    assert abs(float(tables.vectors.mean())) < 1e-3
    assert tables.contexts.abs().sum() == tables.vector_squares.sum() == tables.context_squares.sum() == 0
    assert torch.equal(tables.vectors, new_tables(500, 10, seed=3).vectors)
    assert not torch.equal(tables.vectors, new_tables(500, 10, seed=4).vectors)


def tables_of(vectors, squares):
    vectors = torch.tensor(vectors)
    return Tables(vectors, torch.zeros_like(vectors), torch.tensor(squares), torch.zeros(len(vectors)))


def test_an_item_that_no_pair_had_gets_no_vector():
    tables = tables_of([[1.0, 0.0], [0.3, 0.4], [5.0, 5.0]], [1.0, 0.0, 2.0])
    vectors, found = served_vectors(tables, torch.tensor([4, 3, 9]))
    assert vectors.tolist() == [[1.0, 0.0], [0.0, 0.0], [5.0, 5.0]]
    assert found == {"learnt": 2, "by_side": 0, "without": 1}


def test_side_information_places_items_never_seen_and_leans_on_those_seldom_seen():
    # Items 0 … 4; side rows 5, 6 of the first feature and 7, 8 of the second, of which 8 was never learnt.
    items = [[2.0, 0.0], [0.5, 0.5], [9.0, 9.0], [9.0, 9.0], [9.0, 9.0]]
    tables = tables_of([*items, [0.0, 3.0], [4.0, 0.0], [0.0, 1.0], [7.0, 7.0]], [1.0, 0, 0, 0, 0, 1, 1, 1, 0])
    first = torch.tensor([[5, -1], [5, 6], [-1, -1], [-1, -1], [6, -1]])
    second = torch.tensor([[7], [7], [8], [-1], [8]])
    found, n = served_vectors(tables, torch.tensor([3, 2, 0, 0, 0]), [first, second])
    assert n == {"learnt": 1, "by_side": 2, "without": 2}
    mean = torch.tensor([0.0, 1.0])  # both features of item 0 point there
    torch.testing.assert_close(found[0], (3 * torch.tensor([1.0, 0.0]) + SIDE_EVENTS * mean) / (3 + SIDE_EVENTS))
    # Item 1 was in no pair (its two events do not count): the mean of (5, 6), and 7, each a direction.
    torch.testing.assert_close(found[1], F.normalize(torch.tensor([0.5, 0.5 + 1.0]), dim=0))
    assert found[2].abs().sum() == found[3].abs().sum() == 0
    torch.testing.assert_close(found[4], torch.tensor([1.0, 0.0]))
