"""The two towers' loss over the candidates of a step, with its gradient written out.

A step has a score for each example and candidate, and little else is as large. Here one matrix of them is scored,
turned into the gradient in place, and multiplied back: what autograd would keep and copy at every operation is neither
kept nor copied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparkrec.models.two_tower.network import PAD, TowerShape, sampled_softmax_


@dataclass(frozen=True)
class Terms:
    """What the loss of n examples over C candidates is made of, besides the towers' vectors."""

    temperature: float
    phi: Tensor  # float32 [times, momentum, C], the candidates' momentum at each time
    runs: list[int]  # [times], examples of each time, one after another
    target: Tensor  # int64 [n], the column of each example's own item
    count: Tensor  # float32 [C], times drawn
    log_q: Tensor  # float32 [C]
    hidden: Tensor | None  # bool [n, C], no negatives
    weight: Tensor  # float32 [n]

    def momentum(self) -> Iterator[tuple[slice, Tensor]]:
        """Runs of examples of one time, and the candidates' momentum then: float32 [momentum, C]."""
        end = 0
        for length, phi in zip(self.runs, self.phi, strict=True):
            yield slice(end, end + length), phi
            end += length


def summed_loss(z: Tensor, z_items: Tensor, a: Tensor, terms: Terms) -> Tensor:
    """Σ_n weight_n · loss_n, differentiable, where the score of c is <z_n, z_c> / temperature + <a_n, phi(c, t_n)>.

    The loss is ``models.two_tower.network.sampled_softmax_``'s.

    Args:
        z: float32 [n, dim], the users.
        z_items: float32 [C, dim], the candidates.
        a: float32 [n, momentum].
        terms: The rest.
    """
    loss: Tensor = _SummedLoss.apply(z, z_items, a, terms)  # type: ignore[no-untyped-call]
    return loss


class _SummedLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, z_items: Tensor, a: Tensor, terms: Terms) -> Tensor:
        scaled = z / terms.temperature
        scores = scaled @ z_items.T
        momentum = list(terms.momentum())
        for rows, phi in momentum:
            scores[rows].addmm_(a[rows], phi)
        losses = sampled_softmax_(scores, terms.target, terms.count, terms.log_q, terms.hidden)
        gradient = scores.mul_(terms.weight[:, None])
        of_a = torch.empty_like(a)
        for rows, phi in momentum:
            torch.mm(gradient[rows], phi.T, out=of_a[rows])
        ctx.save_for_backward((gradient @ z_items).div_(terms.temperature), gradient.T @ scaled, of_a)
        return (losses * terms.weight).sum()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (*(saved * grads[0] for saved in ctx.saved_tensors), None)


def known_items(history: Tensor, shape: TowerShape, candidates: Tensor, target: Tensor) -> Tensor:
    """Which candidates are in a row's history (table rows), its own target apart: bool [n, candidates]."""
    ids = history - shape.segments["item"][0]
    place = torch.searchsorted(candidates, ids).clamp(max=len(candidates) - 1)
    found = (history != PAD) & (candidates[place] == ids)
    hidden = torch.zeros(len(history), len(candidates) + 1, dtype=torch.bool, device=history.device)
    hidden.scatter_(1, torch.where(found, place, len(candidates)), True)
    hidden = hidden[:, :-1]
    return hidden.scatter(1, target[:, None], False)
