"""Losses on the scores of sampled candidates, each with its gradient written out.

Scores are [B, C] over C distinct candidates; ``target`` int64 [B] is the column of each event's target, and ``count``
float [C] says how often a candidate is there: one that was drawn three times weighs three times, which gives the same
loss and gradients as three columns would. One occurrence of the target is the positive; all others are negatives, an
accidental hit (a negative that is the target's item) too, as in the authors' own implementation. Each function returns
the loss summed over the B events, and its gradient [B, C]; the scores may be overwritten.

Sources: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939), and Hidasi
and Karatzoglou, "Recurrent neural networks with top-k gains" (arXiv 1706.03847), below "top-k gains".
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from sparkrec.models.gru import compiled

LOG_FLOOR = 1e-24  # keeps log(0) out of BPR-max


def sampled_cross_entropy(
    scores: torch.Tensor, target: torch.Tensor, log_weight: torch.Tensor, log_expected: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax cross-entropy over the candidates, with the log Q correction (Bengio & Senécal 2008; top-k gains 3.1).

    Args:
        scores: [B, C].
        target: int64 [B].
        log_weight: [C], log of Σ over the candidate's occurrences of q^-logq.
        log_expected: [B], logq * log q of the target as a candidate.

    Returns:
        Σ_b −log softmax(score − logq log q)[target], and the gradient of the scores.
    """
    column = target[:, None]
    logits = scores + log_weight
    top = logits.amax(1, keepdim=True)
    grad = logits.sub_(top).exp_()
    total = grad.sum(1, keepdim=True)
    loss = (top + total.log() - scores.gather(1, column) + log_expected[:, None]).sum()
    grad.div_(total)
    grad.scatter_add_(1, column, torch.full_like(total, -1.0))
    return loss, grad


def bpr(scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """BPR (arXiv 1511.06939, sec. 3.1.3): L = −mean_j log σ(r_i − r_j) over the negatives j."""
    column = target[:, None]
    n = _negatives(count)
    behind = scores - scores.gather(1, column)
    grad = torch.sigmoid(behind).mul_(count / n)
    loss = -(F.logsigmoid(behind.neg_()) @ (count / n)).sum() - len(scores) * math.log(2) / n  # without the positive
    grad.scatter_add_(1, column, -grad.sum(1, keepdim=True))
    return loss, grad


def top1(scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """TOP1 (arXiv 1511.06939, sec. 3.1.3): L = mean_j [σ(r_j − r_i) + σ(r_j²)] over the negatives j."""
    column = target[:, None]
    n = _negatives(count)
    term, d_behind, d_own = _top1_terms(scores, column)
    positive = term.gather(1, column).sum() / n
    loss = (term @ (count / n)).sum() - positive
    d_positive = d_own.gather(1, column).neg_() / n
    d_behind.mul_(count / n)
    grad = d_own.mul_(count / n).add_(d_behind)
    grad.scatter_add_(1, column, d_positive.sub_(d_behind.sum(1, keepdim=True)))
    return loss, grad


def bpr_max(
    scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor, bpreg: float, elu: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """BPR-max with score regularisation (top-k gains, eq. 12).

    With r = ELU(score), s = softmax of r over the negatives j:
    L = −log Σ_j s_j σ(r_i − r_j) + bpreg Σ_j s_j r_j².

    Args:
        scores: [B, C].
        target: int64 [B].
        count: float [C].
        bpreg: Weight of the regularisation.
        elu: α of the ELU; 0 leaves the scores as they are.

    Returns:
        Σ_b L_b, and the gradient of the scores.
    """
    plain = scores.device.type == "cpu" and scores.dtype == torch.float32 and not scores.requires_grad
    if plain and len(count) > 1:
        return _bpr_max_compiled(scores, target, count, bpreg, elu)
    column = target[:, None]
    r = F.elu_(scores, alpha=elu) if elu > 0 else scores
    s, some = _softmax_of_negatives(r, column, count)
    sigma = torch.sub(r.gather(1, column), r).sigmoid_()
    product = s * sigma
    won = product.sum(1, keepdim=True).add_(LOG_FLOOR)
    lost = sigma.mul_(product)  # s σ²
    torch.mul(s, r, out=product)
    reg = torch.linalg.vecdot(product, r).unsqueeze(1)
    loss = (bpreg * reg - won.log()).sum()
    # ∂L/∂r_j = s_j [1 − σ_j²/Σsσ + bpreg (r_j² + 2 r_j − Σ s r²)],  ∂L/∂r_i = Σsσ²/Σsσ − 1
    grad = s.mul_(1 - bpreg * reg).add_(product, alpha=2 * bpreg).addcmul_(product, r, value=bpreg)
    grad.addcdiv_(lost, won, value=-1)
    grad.scatter_add_(1, column, lost.sum(1, keepdim=True).div_(won) - some)  # without a negative nothing is to be won
    if elu > 0:
        grad = torch.ops.aten.elu_backward(grad, elu, 1, 1, True, r)
    return loss, grad


def _bpr_max_compiled(
    scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor, bpreg: float, elu: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in one pass over the scores, over which it writes the gradient."""
    grad = scores.contiguous()
    given = (grad.numpy(), target.contiguous().numpy(), count.contiguous().numpy(), np.float32(bpreg), np.float32(elu))
    return torch.tensor(compiled.step.bpr_max(*given), dtype=scores.dtype), grad


def top1_max(scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """TOP1-max (top-k gains): L = Σ_j s_j [σ(r_j − r_i) + σ(r_j²)], with s the softmax of r over the negatives j."""
    column = target[:, None]
    s, _ = _softmax_of_negatives(scores, column, count)
    term, d_behind, d_own = _top1_terms(scores, column)
    mean = (s * term).sum(1, keepdim=True)
    d_behind.mul_(s)
    grad = term.sub_(mean).add_(d_own).mul_(s).add_(d_behind)
    grad.scatter_add_(1, column, -d_behind.sum(1, keepdim=True))
    return mean.sum(), grad


def _negatives(count: torch.Tensor) -> torch.Tensor:
    """Number of an event's negatives; 1 where there are none, whose sums are 0 then."""
    return (count.sum() - 1).clamp_min_(1)


def _softmax_of_negatives(
    r: torch.Tensor, column: torch.Tensor, count: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | float]:
    """[B, C], the softmax of r over the negatives, summed over equal ones; and 0 where there are none, else 1.

    The positive is left out before the exponentials: a target far ahead would push the others' below the floor.
    """
    if len(count) == 1:  # all candidates are the target: are there more than the positive?
        some = (count > 1).to(r.dtype)
        return some.expand(len(r), 1).clone(), some
    s = r + count.log()
    s.scatter_(1, column, r.gather(1, column) + (count[column] - 1).log())
    return torch.softmax(s, 1), 1.0


def _top1_terms(r: torch.Tensor, column: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """σ(r_j − r_i) + σ(r_j²), and the derivatives of its two parts with respect to r_j, each [B, C]."""
    behind, high = torch.sigmoid(r - r.gather(1, column)), torch.sigmoid(r * r)
    return behind + high, behind - behind * behind, (high - high * high).mul_(r).mul_(2)
