"""Losses on the scores of sampled candidates, each with its gradient written out.

Scores are [B, R] over R distinct rows. Each returns the loss summed over the B events and its gradient [B, R].
As in the authors' own implementation an accidental hit, a negative that is the target's item, counts as a negative.
Equal candidates are scored once and counted: an item drawn three times weighs three times in the loss, which gives
the same loss and gradients as three columns would.

Sources: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939), and Hidasi
and Karatzoglou, "Recurrent neural networks with top-k gains" (arXiv 1706.03847), below "top-k gains".
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

LOG_FLOOR = 1e-24  # keeps log(0) out of BPR-max


def sampled_cross_entropy(
    scores: torch.Tensor, target: torch.Tensor, log_weight: torch.Tensor, log_expected: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax cross-entropy over the candidates, with the log Q correction (Bengio & Senécal 2008; top-k gains 3.1).

    Args:
        scores: [B, R] of the distinct rows.
        target: int64 [B], the target's column.
        log_weight: [R], log of Σ over the candidates that are this row of q^-logq; -inf for a row that is none.
        log_expected: [B], logq * log q of the target as a candidate.

    Returns:
        Σ_b −log softmax(score − logq log q)[target], and the gradient of the scores.
    """
    logits = scores + log_weight
    top = logits.amax(1, keepdim=True)
    grad = logits.sub_(top).exp_()
    total = grad.sum(1, keepdim=True)
    picked = scores.gather(1, target[:, None]).squeeze(1)
    loss = (top.squeeze(1) + total.squeeze(1).log() - picked + log_expected).sum()
    grad.div_(total)
    grad.scatter_add_(1, target[:, None], torch.full_like(picked, -1.0)[:, None])
    return loss, grad


def bpr_max(
    scores: torch.Tensor, target: torch.Tensor, count: torch.Tensor, bpreg: float, elu: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """BPR-max with score regularisation (top-k gains, eq. 12), the softmax over the negatives only.

    With r = ELU(score), s = softmax of r over the negatives j:
    L = −log Σ_j s_j σ(r_i − r_j) + bpreg Σ_j s_j r_j².

    Args:
        scores: [B, R] of the distinct rows.
        target: int64 [B], the target's column; one of its occurrences is the positive, the others are negatives.
        count: float [R], how many candidates are this row; 0 for a row that is none.
        bpreg: Weight of the regularisation.
        elu: α of the ELU; 0 leaves the scores as they are.

    Returns:
        Σ_b L_b, and the gradient of the scores.
    """
    column = target[:, None]
    r = F.elu(scores, alpha=elu) if elu > 0 else scores
    r_target = r.gather(1, column)
    s = r + count.log()  # log of the softmax's terms; rows that are no candidates drop out
    s.scatter_(1, column, r_target + (count[target][:, None] - 1).log())
    s.sub_(s.amax(1, keepdim=True).clamp_min_(-1e30)).exp_()
    total = s.sum(1, keepdim=True)
    s.div_(total.clamp_min(LOG_FLOOR))
    sigma = torch.sigmoid(r_target - r)
    s_sigma = s * sigma
    won = s_sigma.sum(1, keepdim=True).add_(LOG_FLOOR)
    lost = (s_sigma.mul_(sigma)).sum(1, keepdim=True).div_(won)  # Σ s σ² / Σ s σ
    square = r * r
    reg = (s * square).sum(1, keepdim=True)
    loss = (bpreg * reg - won.log()).sum()
    # ∂L/∂r_j = s_j [1 − σ_j²/Σsσ + bpreg (r_j² + 2 r_j − Σ s r²)],  ∂L/∂r_i = Σsσ²/Σsσ − 1
    grad = square.add_(r, alpha=2).sub_(reg).mul_(bpreg).add_(1)
    grad.sub_(sigma.square_().div_(won)).mul_(s)
    grad.scatter_add_(1, column, lost - (total > 0).to(r.dtype))  # without a negative nothing is to be won
    if elu > 0:
        grad = torch.ops.aten.elu_backward(grad, elu, 1, 1, True, r)
    return loss, grad
