"""The losses on sampled candidates and their written-out gradients, against hand-computed values and autograd."""

import math

import pytest
import torch

from sparkrec.models import losses

INF = float("inf")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cross_entropy_hand_computed():
    # Candidates: the target (score ln 2) and two negatives (ln 1, ln 1): softmax 2/4, loss ln 2.
    scores = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    loss, grad = losses.sampled_cross_entropy(scores, torch.tensor([0]), torch.zeros(3), torch.zeros(1))
    assert loss.item() == pytest.approx(math.log(2.0))
    assert grad.tolist()[0] == pytest.approx([-0.5, 0.25, 0.25])


def test_cross_entropy_log_q_hand_computed():
    # q of the target 4, of the negative 2, logq 1: corrected scores ln(8) - ln(4), ln(6) - ln(2): softmax 2/5.
    scores = torch.tensor([[math.log(8.0), math.log(6.0)]])
    weight = torch.tensor([1 / 4, 1 / 2]).log()
    loss, _ = losses.sampled_cross_entropy(scores, torch.tensor([0]), weight, torch.tensor([math.log(4.0)]))
    assert loss.item() == pytest.approx(math.log(5 / 2))


def test_bpr_max_hand_computed():
    # r = (1, 0, -1) without ELU, target 0; s over the negatives = softmax(0, -1).
    scores = torch.tensor([[1.0, 0.0, -1.0]])
    e = math.exp(-1)
    s = (1 / (1 + e), e / (1 + e))
    won = s[0] / (1 + math.exp(-1)) + s[1] / (1 + math.exp(-2))
    expected = -math.log(won) + 1.5 * s[1] * 1.0  # the regularisation sees the negatives' squares alone
    loss, _ = losses.bpr_max(scores, torch.tensor([0]), torch.ones(3), bpreg=1.5, elu=0.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_bpr_max_elu_hand_computed():
    r = 0.5 * (math.exp(-1) - 1)  # ELU of -1
    won = 1 / (1 + math.exp(-(2 - r)))
    loss, _ = losses.bpr_max(torch.tensor([[2.0, -1.0]]), torch.tensor([0]), torch.ones(2), bpreg=1.0, elu=0.5)
    assert loss.item() == pytest.approx(-math.log(won) + r * r, rel=1e-6)


def test_bpr_max_of_hopeless_scores_is_finite():
    # σ(r_i − r_j) underflows to 0: log(0) and 0/0 must not come up.
    loss, grad = losses.bpr_max(torch.tensor([[-500.0, 500.0]]), torch.tensor([0]), torch.ones(2), bpreg=0.0, elu=0.0)
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()


def test_losses_without_negatives_are_finite():
    for loss, grad in (
        losses.bpr_max(torch.tensor([[0.3]]), torch.tensor([0]), torch.ones(1), bpreg=1.0, elu=0.5),
        losses.sampled_cross_entropy(torch.tensor([[0.3]]), torch.tensor([0]), torch.zeros(1), torch.zeros(1)),
    ):
        assert torch.isfinite(loss)
        assert grad.abs().max() < 1e-6


def reference_bpr_max(scores, bpreg, elu):
    """One column for each candidate occurrence, column b the target of row b."""
    r = torch.nn.functional.elu(scores, elu) if elu else scores
    own = torch.eye(*r.shape, dtype=torch.bool)
    s = torch.softmax(r.masked_fill(own, -INF), dim=1)
    target = r.diagonal()[:, None]
    return (-torch.log((s * torch.sigmoid(target - r)).sum(1)) + bpreg * (s * r * r).sum(1)).sum()


def reference_cross_entropy(scores, log_q):
    return torch.nn.functional.cross_entropy(scores - log_q, torch.arange(len(scores)), reduction="sum")


def candidates(n_batch=4, n_extra=9, n_items=7, seed=3):
    """Candidates of a mini-batch with repeats and accidental hits; their distinct rows."""
    ids = torch.randint(0, n_items, (n_batch + n_extra,), generator=seeded(seed))
    rows, place = torch.unique(ids, return_inverse=True)
    return ids, rows, place


@pytest.mark.parametrize("elu", [0.0, 0.5, 1.0])
def test_bpr_max_over_distinct_rows_is_that_over_occurrences(elu):
    for seed in range(5):
        _, rows, place = candidates(seed=seed)
        scores = (3 * torch.randn(4, len(rows), generator=seeded(seed + 100))).double().requires_grad_()
        expected = reference_bpr_max(scores[:, place], 1.95, elu)
        expected.backward()
        count = torch.bincount(place, minlength=len(rows)).double()
        loss, grad = losses.bpr_max(scores.detach(), place[:4], count, 1.95, elu)
        assert torch.allclose(loss, expected.detach())
        assert torch.allclose(grad, scores.grad, atol=1e-9)


def test_cross_entropy_over_distinct_rows_is_that_over_occurrences():
    for seed in range(5):
        _, rows, place = candidates(seed=seed)
        n = len(rows)
        q = torch.rand(n, generator=seeded(seed + 7)).double() + 0.1
        log_q = 0.7 * torch.cat([q[place[:4]].log(), 0.2 * q[place[4:]].log()])  # targets and sampled ones differ
        scores = (3 * torch.randn(4, n, generator=seeded(seed + 100))).double().requires_grad_()
        expected = reference_cross_entropy(scores[:, place], log_q)
        expected.backward()
        n_target, n_sampled = (torch.bincount(p, minlength=n).double() for p in (place[:4], place[4:]))
        weight = n_target * q**-0.7 + n_sampled * q ** (-0.7 * 0.2)
        loss, grad = losses.sampled_cross_entropy(scores.detach(), place[:4], weight.log(), log_q[:4])
        assert torch.allclose(loss, expected.detach())
        assert torch.allclose(grad, scores.grad, atol=1e-9)


@pytest.mark.parametrize("name", ["bpr-max", "cross-entropy"])
def test_rows_that_are_no_candidates_do_not_count(name):
    """A row that a step touches only as an input has no part in the loss."""
    scores = torch.randn(2, 4, generator=seeded())
    target, part = torch.tensor([0, 1]), torch.tensor([0, 1, 3])
    count = torch.tensor([1.0, 1.0, 0.0, 2.0])

    def compute(s, c):
        if name == "bpr-max":
            return losses.bpr_max(s, target, c, 1.0, 0.5)
        return losses.sampled_cross_entropy(s, target, c.log(), torch.zeros(2))

    loss, grad = compute(scores, count)
    without, grad_without = compute(scores[:, part], count[part])
    assert torch.allclose(loss, without)
    assert torch.allclose(grad[:, part], grad_without)
    assert grad[:, 2].abs().max() == 0


def test_bpr_max_of_a_target_far_ahead_is_near_zero():
    # The softmax is over the negatives alone: a high target must not push their terms below the floor.
    loss, _ = losses.bpr_max(torch.tensor([[200.0, 1.0, 2.0]]), torch.tensor([0]), torch.ones(3), bpreg=0.0, elu=0.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
