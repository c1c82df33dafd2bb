"""The sampler's distribution and the optimizer's arithmetic."""

import math

import pytest
import torch

from sparkrec.models.gru.optimizer import AdagradMomentum
from sparkrec.ranks.sampling import PopularitySampler


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_draws_follow_popularity_to_the_power_alpha(alpha):
    counts = torch.tensor([0, 1, 10, 0, 100, 1000, 3, 0])
    sampler = PopularitySampler.from_counts(counts, alpha)
    n = 200_000
    drawn = torch.bincount(sampler.draw((n // 100, 100), torch.Generator().manual_seed(7)).flatten(), minlength=8)
    seen = counts > 0
    assert drawn[~seen].sum() == 0  # an item without events is never drawn
    expected = counts[seen].double() ** alpha
    expected = n * expected / expected.sum()
    chi2 = ((drawn[seen] - expected) ** 2 / expected).sum().item()
    assert chi2 < 18.5  # 99.9 % of the distribution with 4 degrees of freedom


@pytest.mark.parametrize("n_items", [1, 2, 37, 1000])
@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_cells_give_the_item_that_a_search_gives(n_items, alpha):
    counts = torch.randint(0, 50, (n_items,), generator=torch.Generator().manual_seed(n_items)) ** 2
    counts[n_items // 2] = 7
    sampler = PopularitySampler.from_counts(counts, alpha)
    drawn = sampler.draw((50, 400), torch.Generator().manual_seed(1))
    u = torch.rand((50, 400), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.searchsorted(sampler.cumulative, u * sampler.cumulative[-1], right=True)
    assert torch.equal(drawn, expected)
    assert (counts[drawn] > 0).all()


def test_draws_are_repeatable():
    sampler = PopularitySampler.from_counts(torch.arange(1, 50), 0.5)
    first, second = (sampler.draw((3, 40), torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)


def test_adagrad_with_momentum_by_hand():
    optimizer = AdagradMomentum(learning_rate=0.1, momentum=0.5)
    p, acc, velocity = torch.tensor([1.0]), torch.zeros(1), torch.zeros(1)
    optimizer.step(p, acc, velocity, torch.tensor([2.0]))
    v1 = -0.1 * 2 / math.sqrt(4 + 1e-6)  # a first step of the learning rate: the accumulator starts at 0
    assert p.item() == pytest.approx(1 + v1)
    optimizer.step(p, acc, velocity, torch.tensor([1.0]))
    v2 = 0.5 * v1 - 0.1 * 1 / math.sqrt(5 + 1e-6)  # the learning rate itself does not decay
    assert p.item() == pytest.approx(1 + v1 + v2)
    assert acc.item() == pytest.approx(5.0)


@pytest.mark.parametrize("width", [1, 37])
def test_rows_are_updated_as_tensors_are_and_the_others_are_left(width):
    generator = torch.Generator().manual_seed(1)
    optimizer = AdagradMomentum(learning_rate=0.1, momentum=0.5)
    table = torch.rand(20, 3, width, generator=generator)
    table[3, 1:] = 0.0  # never touched before
    rows, grad = torch.tensor([3, 19, 0]), torch.randn(6, width, generator=generator)[::2]
    grad[1, 0] = 0.0
    expected = table.clone()
    block = table[rows]
    optimizer.step(block[:, 0], block[:, 1], block[:, 2], grad, 0.25)
    expected[rows] = block
    optimizer.step_rows(table, rows, grad, 0.25)
    torch.testing.assert_close(table, expected)
    others = [i for i in range(20) if i not in rows.tolist()]
    assert torch.equal(table[others], expected[others])
