"""The losses on sampled candidates and their written-out gradients, against hand-computed values and autograd."""

import math

import pytest
import torch

from sparkrec.models.gru import losses

INF = float("inf")
FIRST = torch.tensor([0])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


# ---- by hand: r = (1, 0, -1), the first is the target ----------------------------------------------------------------

SCORES = torch.tensor([[1.0, 0.0, -1.0]])
SHARES = (sigmoid(1), sigmoid(-1))  # softmax of (0, -1), over the negatives alone


def test_cross_entropy_hand_computed():
    # Candidates: the target (score ln 2) and two negatives (ln 1, ln 1): softmax 2/4, loss ln 2.
    scores = torch.tensor([[math.log(2.0), 0.0, 0.0]])
    loss, grad = losses.sampled_cross_entropy(scores, FIRST, torch.zeros(3), torch.zeros(1))
    assert loss.item() == pytest.approx(math.log(2.0))
    assert grad.tolist()[0] == pytest.approx([-0.5, 0.25, 0.25])


def test_cross_entropy_log_q_hand_computed():
    # q of the target 4, of the negative 2, logq 1: corrected scores ln(8) - ln(4), ln(6) - ln(2): softmax 2/5.
    scores = torch.tensor([[math.log(8.0), math.log(6.0)]])
    weight = torch.tensor([1 / 4, 1 / 2]).log()
    loss, _ = losses.sampled_cross_entropy(scores, FIRST, weight, torch.tensor([math.log(4.0)]))
    assert loss.item() == pytest.approx(math.log(5 / 2))


def test_bpr_hand_computed():
    loss, grad = losses.bpr(SCORES, FIRST, torch.ones(3))
    assert loss.item() == pytest.approx(-(math.log(sigmoid(1)) + math.log(sigmoid(2))) / 2)
    assert grad.tolist()[0] == pytest.approx([-(sigmoid(-1) + sigmoid(-2)) / 2, sigmoid(-1) / 2, sigmoid(-2) / 2])


def test_top1_hand_computed():
    loss, _ = losses.top1(SCORES, FIRST, torch.ones(3))
    assert loss.item() == pytest.approx((sigmoid(-1) + sigmoid(0) + sigmoid(-2) + sigmoid(1)) / 2)


def test_bpr_max_hand_computed():
    won = SHARES[0] * sigmoid(1) + SHARES[1] * sigmoid(2)
    expected = -math.log(won) + 1.5 * SHARES[1] * 1.0  # the regularisation sees the negatives' squares alone
    loss, _ = losses.bpr_max(SCORES.clone(), FIRST, torch.ones(3), bpreg=1.5, elu=0.0)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_bpr_max_elu_hand_computed():
    r = 0.5 * (math.exp(-1) - 1)  # ELU of -1
    loss, _ = losses.bpr_max(torch.tensor([[2.0, -1.0]]), FIRST, torch.ones(2), bpreg=1.0, elu=0.5)
    assert loss.item() == pytest.approx(-math.log(sigmoid(2 - r)) + r * r, rel=1e-6)


def test_top1_max_hand_computed():
    loss, _ = losses.top1_max(SCORES, FIRST, torch.ones(3))
    expected = SHARES[0] * (sigmoid(-1) + sigmoid(0)) + SHARES[1] * (sigmoid(-2) + sigmoid(1))
    assert loss.item() == pytest.approx(expected)


def test_bpr_max_of_hopeless_scores_is_finite():
    # σ(r_i − r_j) underflows to 0: log(0) and 0/0 must not come up.
    loss, grad = losses.bpr_max(torch.tensor([[-500.0, 500.0]]), FIRST, torch.ones(2), bpreg=0.0, elu=0.0)
    assert torch.isfinite(loss)
    assert torch.isfinite(grad).all()


def test_bpr_max_of_a_target_far_ahead_is_near_zero():
    # The softmax is over the negatives alone: a high target must not push their terms below the floor.
    loss, _ = losses.bpr_max(torch.tensor([[200.0, 1.0, 2.0]]), FIRST, torch.ones(3), bpreg=0.0, elu=0.0)
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("wrong", [math.nan, INF])
def test_bpr_max_of_a_score_that_is_no_number_is_none(wrong):
    # Training ends where the loss is not finite: the compiled loop must not hide it.
    for place in range(3):
        scores = torch.tensor([[0.5, 1.0, 2.0]])
        scores[0, place] = wrong
        if place or wrong != INF:  # a target infinitely far ahead has won
            assert not torch.isfinite(losses.bpr_max(scores, FIRST, torch.ones(3), bpreg=1.0, elu=0.5)[0])


# ---- distinct candidates with counts are a column for each occurrence ------------------------------------------------


def plain(name, scores):
    """Column b the target of row b, every candidate a column: [rows, columns] → the summed loss."""
    own = torch.eye(*scores.shape, dtype=torch.bool)
    r = torch.nn.functional.elu(scores, 0.5) if name == "bpr-max, elu" else scores
    ahead = r.diagonal()[:, None] - r
    s = torch.softmax(r.masked_fill(own, -INF), dim=1)
    mean = (~own).to(r.dtype) / (r.shape[1] - 1)
    if name == "bpr":
        return -(mean * torch.sigmoid(ahead).log()).sum()
    if name == "top1":
        return (mean * (torch.sigmoid(-ahead) + torch.sigmoid(r**2))).sum()
    if name == "top1-max":
        return (s * (torch.sigmoid(-ahead) + torch.sigmoid(r**2))).sum()
    return (-torch.log((s * torch.sigmoid(ahead)).sum(1)) + 1.95 * (s * r * r).sum(1)).sum()


COUNTED = {
    "bpr": losses.bpr,
    "top1": losses.top1,
    "top1-max": losses.top1_max,
    "bpr-max": lambda *args: losses.bpr_max(*args, 1.95, 0.0),
    "bpr-max, elu": lambda *args: losses.bpr_max(*args, 1.95, 0.5),
}


def candidates(n_batch=4, n_extra=9, n_items=7, seed=3):
    """Candidates of a mini-batch with repeats and accidental hits: their number and the places of the occurrences."""
    ids = torch.randint(0, n_items, (n_batch + n_extra,), generator=seeded(seed))
    rows, place = torch.unique(ids, return_inverse=True)
    return len(rows), place


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("name", COUNTED)
def test_loss_over_distinct_candidates_is_that_over_occurrences(name, dtype):
    for seed in range(5):
        n, place = candidates(seed=seed)
        scores = (3 * torch.randn(4, n, generator=seeded(seed + 100))).double().requires_grad_()
        expected = plain(name, scores[:, place])
        expected.backward()
        count = torch.bincount(place, minlength=n).to(dtype)
        before = count.clone()
        loss, grad = COUNTED[name](scores.detach().to(dtype, copy=True), place[:4], count)
        rounding = 20 * torch.finfo(dtype).eps
        assert loss.item() == pytest.approx(expected.item(), rel=rounding)
        assert (grad.double() - scores.grad).abs().max() <= rounding * max(1, scores.grad.abs().max())
        assert torch.equal(count, before)


def test_cross_entropy_over_distinct_candidates_is_that_over_occurrences():
    for seed in range(5):
        n, place = candidates(seed=seed)
        q = torch.rand(n, generator=seeded(seed + 7)).double() + 0.1
        log_q = 0.7 * torch.cat([q[place[:4]].log(), 0.2 * q[place[4:]].log()])  # targets and sampled ones differ
        scores = (3 * torch.randn(4, n, generator=seeded(seed + 100))).double().requires_grad_()
        corrected = scores[:, place] - log_q
        expected = torch.nn.functional.cross_entropy(corrected, torch.arange(4), reduction="sum")
        expected.backward()
        n_target, n_sampled = (torch.bincount(p, minlength=n).double() for p in (place[:4], place[4:]))
        weight = n_target * q**-0.7 + n_sampled * q ** (-0.7 * 0.2)
        loss, grad = losses.sampled_cross_entropy(scores.detach(), place[:4], weight.log(), log_q[:4])
        assert torch.allclose(loss, expected.detach())
        assert torch.allclose(grad, scores.grad, atol=1e-9)


@pytest.mark.parametrize("name", COUNTED)
def test_loss_without_negatives_is_nothing_to_learn_from(name):
    loss, grad = COUNTED[name](torch.tensor([[0.3]]), FIRST, torch.ones(1))
    assert torch.isfinite(loss)
    assert grad.abs().max() < 1e-6


def test_cross_entropy_without_negatives_is_zero():
    loss, grad = losses.sampled_cross_entropy(torch.tensor([[0.3]]), FIRST, torch.zeros(1), torch.zeros(1))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert grad.abs().max() < 1e-6
