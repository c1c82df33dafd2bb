"""The losses of a pair of user and item against items that the user did not take. Tensors only.

With s_ui = b_i + p_u · q_i, and the mean over the items j that are drawn:

    bpr        -ln σ(s_ui - s_uj)                  Rendle, Freudenthaler, Gantner, Schmidt-Thieme, "BPR: Bayesian
                                                   Personalized Ranking from Implicit Feedback", UAI 2009, BPR-OPT (4.1)
    hinge      max(0, margin - s_ui + s_uj)
    pointwise  -ln σ(s_ui) - ln σ(-s_uj)           the likelihood of taken and not taken
    warp       Φ(⌊(Y - 1) / N⌋) max(0, margin - s_ui + s_uj),  Φ(k) = Σ_(r=1..k) 1/r      Weston, Bengio, Usunier,
               "WSABIE: Scaling Up To Large Vocabulary Image Annotation", IJCAI 2011, eq. 1 to 5 and algorithm 1

of warp j is the first that is drawn with s_uj > s_ui - margin, N the number of draws until then, Y the number of items;
where none of the draws is, the pair moves nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def losses(kind: str, taken: Tensor, drawn: Tensor, there: Tensor, margin: float) -> Tensor:
    """float32 [n] of the pairs; 0 of one against which nothing could be drawn.

    Args:
        kind: ``bpr``, ``hinge`` or ``pointwise``; ``warp`` is ``hinge`` times ``rank_weight``.
        taken: float32 [n], scores of the pairs.
        drawn: float32 [n, m], scores of the items drawn.
        there: bool [n, m], of those that the user did not take.
        margin: Of hinge.
    """
    beyond = taken[:, None] - drawn
    if kind == "bpr":
        each = F.softplus(-beyond)
    elif kind == "pointwise":
        each = F.softplus(-taken)[:, None] + F.softplus(drawn)
    else:
        each = F.relu(margin - beyond)
    return (each * there).sum(1) / there.sum(1).clamp(min=1)


def first_violation(taken: Tensor, drawn: Tensor, there: Tensor, margin: float) -> tuple[Tensor, Tensor]:
    """warp: which of the draws is scored too high, int64 [n], and after how many, int64 [n]; 0 where none is.

    Arguments as of ``losses``.
    """
    too_high = there & (drawn > taken[:, None] - margin)
    first = too_high.int().argmax(1)
    tried = torch.where(too_high.any(1), there.cumsum(1).gather(1, first[:, None])[:, 0], 0)
    return first, tried


def rank_weight(tried: Tensor, n_items: int) -> Tensor:
    """float32 [n]: Φ(⌊(Y - 1) / N⌋) after N draws; 0 after none.

    Args:
        tried: int64 [n].
        n_items: Y.
    """
    harmonic = torch.cat([torch.zeros(1), (1.0 / torch.arange(1, max(n_items, 2), dtype=torch.float64)).cumsum(0)])
    rank = (n_items - 1) // tried.clamp(min=1)
    return torch.where(tried > 0, harmonic.to(tried.device)[rank].float(), 0.0)
