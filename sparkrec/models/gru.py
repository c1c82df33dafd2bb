"""Session-parallel GRU (GRU4Rec): parameters, layers, losses on sampled outputs, and their gradients.

Sources: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939), and Hidasi
and Karatzoglou, "Recurrent neural networks with top-k gains" (arXiv 1706.03847), below "top-k gains".

The input embedding is the output embedding ("constrained"). A step touches few rows of it, so gradients are written
out by hand for just those rows: the full table never has one. Equal candidates are scored once and counted: a row
drawn three times weighs three times in the loss, which gives the same loss and gradient as three columns would.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Iterator

LOG_FLOOR = 1e-24  # keeps log(0) out of BPR-max


@dataclass(frozen=True)
class GruShape:
    """Sizes of the model. The embedding is as wide as the last layer."""

    n_items: int
    layers: tuple[int, ...]

    @property
    def dim(self) -> int:
        """Width of the embedding."""
        return self.layers[-1]

    def cell_sizes(self) -> list[tuple[int, int]]:
        """(input width, width) of each layer."""
        return list(zip((self.dim, *self.layers[:-1]), self.layers, strict=True))


@dataclass(frozen=True)
class Cell:
    """One GRU layer; the gates are stacked in the order reset, update, new, as in ``torch.nn.GRUCell``."""

    weight_ih: torch.Tensor  # [3H, in]
    weight_hh: torch.Tensor  # [3H, H]
    bias_ih: torch.Tensor  # [3H]
    bias_hh: torch.Tensor  # [3H]


@dataclass(frozen=True)
class Parameters:
    """All weights. ``cells`` are views into ``flat``, so that an optimizer handles the layers as one vector."""

    shape: GruShape
    table: torch.Tensor  # [n_items, dim + 1]: embedding, output bias in the last column
    flat: torch.Tensor  # [all weights and biases of the layers]

    @property
    def cells(self) -> list[Cell]:
        """The layers."""
        return cells_of(self.shape, self.flat)


def flat_size(shape: GruShape) -> int:
    """Number of weights and biases of the layers."""
    return sum(3 * width * (n_in + width + 2) for n_in, width in shape.cell_sizes())


def cells_of(shape: GruShape, flat: torch.Tensor) -> list[Cell]:
    """The layers as views into a flat vector (of weights, or of their gradients)."""
    parts = _slices(flat, [n for n_in, w in shape.cell_sizes() for n in (3 * w * n_in, 3 * w * w, 3 * w, 3 * w)])
    return [
        Cell(next(parts).view(3 * w, n_in), next(parts).view(3 * w, w), next(parts), next(parts))
        for n_in, w in shape.cell_sizes()
    ]


def init_parameters(shape: GruShape, generator: torch.Generator) -> Parameters:
    """New weights, on the CPU: uniform in ±sqrt(6 / (in + out)) for each gate's matrix, biases 0 (Glorot & Bengio)."""

    def uniform(rows: int, columns: int) -> torch.Tensor:
        bound = math.sqrt(6.0 / (rows + columns))
        return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)

    table = torch.zeros(shape.n_items, shape.dim + 1)
    table[:, :-1] = uniform(shape.n_items, shape.dim)
    flat = torch.zeros(flat_size(shape))
    for cell, (n_in, width) in zip(cells_of(shape, flat), shape.cell_sizes(), strict=True):
        for gate in range(3):
            cell.weight_ih[gate * width : (gate + 1) * width] = uniform(width, n_in)
            cell.weight_hh[gate * width : (gate + 1) * width] = uniform(width, width)
    return Parameters(shape, table, flat)


def to_tensors(parameters: Parameters) -> dict[str, torch.Tensor]:
    """The weights by name, as they are stored."""
    named = {"embedding": parameters.table[:, :-1].contiguous(), "bias": parameters.table[:, -1].contiguous()}
    for i, cell in enumerate(parameters.cells):
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            named[f"gru.{i}.{name}"] = getattr(cell, name).contiguous()
    return named


def from_tensors(shape: GruShape, named: dict[str, torch.Tensor]) -> Parameters:
    """The inverse of ``to_tensors``."""
    table = torch.cat([named["embedding"], named["bias"][:, None]], dim=1)
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    flat = torch.cat([named[f"gru.{i}.{n}"].reshape(-1) for i in range(len(shape.layers)) for n in names])
    return Parameters(shape, table, flat)


# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CellTape:
    """What a layer's backward pass needs of its forward pass."""

    x: torch.Tensor  # [B, in]
    h: torch.Tensor  # [B, H]
    reset: torch.Tensor  # [B, H]
    update: torch.Tensor  # [B, H]
    new: torch.Tensor  # [B, H]
    hidden_new: torch.Tensor  # [B, H], the share of h in ``new`` before the reset gate


def cell_forward(cell: Cell, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, CellTape]:
    """One step of a layer, as ``torch.nn.GRUCell``: h' = (1 - z) n + z h. x: [B, in], h: [B, H] → [B, H]."""
    i_r, i_z, i_n = torch.addmm(cell.bias_ih, x, cell.weight_ih.t()).chunk(3, dim=1)
    h_r, h_z, h_n = torch.addmm(cell.bias_hh, h, cell.weight_hh.t()).chunk(3, dim=1)
    reset, update = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    new = torch.tanh(torch.addcmul(i_n, reset, h_n))
    return torch.lerp(new, h, update), CellTape(x, h, reset, update, new, h_n)


def cell_backward(cell: Cell, tape: CellTape, d_out: torch.Tensor, grads: Cell) -> torch.Tensor:
    """Writes the layer's gradient into ``grads`` and returns that of x [B, in]; h is a constant (one step of BPTT)."""
    d_new = d_out * (1 - tape.update) * (1 - tape.new * tape.new)
    d_update = d_out * (tape.h - tape.new) * tape.update * (1 - tape.update)
    d_reset = d_new * tape.hidden_new * tape.reset * (1 - tape.reset)
    d_i = torch.cat([d_reset, d_update, d_new], dim=1)
    d_h = torch.cat([d_reset, d_update, d_new * tape.reset], dim=1)
    torch.mm(d_i.t(), tape.x, out=grads.weight_ih)
    torch.mm(d_h.t(), tape.h, out=grads.weight_hh)
    torch.sum(d_i, 0, out=grads.bias_ih)
    torch.sum(d_h, 0, out=grads.bias_hh)
    return d_i @ cell.weight_ih


def advance(parameters: Parameters, items: torch.Tensor, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """One step without dropout, as in serving.

    Args:
        parameters: The weights.
        items: int64 [B], the items of the current events.
        states: For each layer [B, H].

    Returns:
        The new states; the last one is the session's vector, whose product with an item's embedding plus the item's
        bias is the item's score.
    """
    x = parameters.table.index_select(0, items)[:, :-1]
    new = []
    for cell, h in zip(parameters.cells, states, strict=True):
        x, _ = cell_forward(cell, x, h)
        new.append(x)
    return new


# ---- losses ----------------------------------------------------------------------------------------------------------
# Scores are [B, R] over R distinct rows. Each returns the loss summed over the B events and its gradient [B, R].
# As in the authors' own implementation an accidental hit, a negative that is the target's item, counts as a negative.


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


def _slices(flat: torch.Tensor, sizes: list[int]) -> Iterator[torch.Tensor]:
    return iter(flat.split(sizes))
