"""Session-parallel GRU (GRU4Rec): layers, one step's forward and backward pass.

Source: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939).

The input embedding is the output embedding ("constrained"). A step touches few rows of it, so gradients are written
out by hand for just those rows: the full table never has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparkrec.config import GruConfig
from sparkrec.models.network import (
    Batch,
    Gradients,
    Mask,
    Parameters,
    ScoreLoss,
    Table,
    Touched,
    dropped,
    rows_of_both,
    rows_of_candidates,
)

# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One GRU layer; the gates are stacked in the order reset, update, new, as in ``torch.nn.GRUCell``."""

    weight_ih: torch.Tensor  # [3H, in]
    weight_hh: torch.Tensor  # [3H, H]
    bias_ih: torch.Tensor  # [3H]
    bias_hh: torch.Tensor  # [3H]


@dataclass(frozen=True)
class CellTape:
    """What a layer's backward pass needs of its forward pass."""

    x: torch.Tensor  # [B, in]
    h: torch.Tensor  # [B, H]
    reset: torch.Tensor  # [B, H]
    update: torch.Tensor  # [B, H]
    new: torch.Tensor  # [B, H]
    hidden_new: torch.Tensor  # [B, H], the share of h in ``new`` before the reset gate


def cell_sizes(layers: Sequence[int], n_in: int) -> list[tuple[int, int]]:
    """(input width, width) of each layer."""
    return list(zip((n_in, *layers[:-1]), layers, strict=True))


def cells_size(sizes: Sequence[tuple[int, int]]) -> int:
    """Number of weights and biases of layers of these (input width, width)."""
    return sum(3 * width * (n_in + width + 2) for n_in, width in sizes)


def cells_of(sizes: Sequence[tuple[int, int]], flat: torch.Tensor) -> list[Cell]:
    """The layers as views into a flat vector (of weights, or of their gradients)."""
    parts = iter(flat.split([n for n_in, w in sizes for n in (3 * w * n_in, 3 * w * w, 3 * w, 3 * w)]))
    return [
        Cell(next(parts).view(3 * w, n_in), next(parts).view(3 * w, w), next(parts), next(parts)) for n_in, w in sizes
    ]


def init_cells(cells: Sequence[Cell], generator: torch.Generator) -> None:
    """Draws new weights in place: uniform in ±sqrt(6 / (in + out)) for each gate's matrix; biases stay as they are."""
    for cell in cells:
        for matrix in (cell.weight_ih, cell.weight_hh):
            for gate in matrix.chunk(3):
                bound = math.sqrt(6.0 / sum(gate.shape))
                gate.uniform_(-bound, bound, generator=generator)


def cell_tensors(cells: Sequence[Cell], prefix: str = "gru") -> dict[str, torch.Tensor]:
    """The layers' weights by name."""
    return {
        f"{prefix}.{i}.{name}": getattr(cell, name) for i, cell in enumerate(cells) for name in Cell.__annotations__
    }


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


# ---- network ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GruNetwork:
    """GRU layers over an item embedding, which scores the candidates too. A ``network.Network``."""

    n_items: int
    layers: tuple[int, ...]
    dropout_embedding: float = 0.0
    dropout_hidden: float = 0.0

    @property
    def tables(self) -> tuple[Table, ...]:
        """The embedding and the output bias."""
        return Table("embedding", self.n_items, self.layers[-1], self.layers[-1]), Table("bias", self.n_items, 1)

    @property
    def flat_size(self) -> int:
        """Number of weights and biases of the layers."""
        return cells_size(self._sizes)

    @property
    def state_widths(self) -> tuple[int, ...]:
        """A state for each layer."""
        return self.layers

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Of the embedding and of each layer's output."""
        return Mask(self.layers[-1], self.dropout_embedding), *[Mask(w, self.dropout_hidden) for w in self.layers]

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """See ``Network``."""
        init_cells(self._cells(flat), generator)

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """See ``Network``."""
        return cell_tensors(self._cells(flat))

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """See ``Network``."""
        return rows_of_both(batch), rows_of_candidates(batch)

    def gradients(
        self,
        weights: Parameters,
        hidden: Sequence[torch.Tensor],
        batch: Batch,
        touched: Sequence[Touched],
        masks: Sequence[torch.Tensor | None],
        score_loss: ScoreLoss,
    ) -> Gradients:
        """See ``Network``."""
        embedding, bias = weights.tables
        cells = self._cells(weights.flat)
        begins = (batch.start != 0)[:, None]
        x = dropped(embedding.index_select(0, touched[0].input), masks[0])
        outs, tapes = [], []
        for cell, h, mask in zip(cells, hidden, masks[1:], strict=True):
            x, tape = cell_forward(cell, x, h.masked_fill(begins, 0.0))
            x = dropped(x, mask)
            outs.append(x)
            tapes.append(tape)
        candidates = embedding[: len(batch.candidates)]
        loss, d_scores = score_loss(torch.addmm(bias.t(), x, candidates.t()))
        d_embedding, d_flat = torch.zeros_like(embedding), torch.empty_like(weights.flat)
        torch.mm(d_scores.t(), x, out=d_embedding[: len(candidates)])
        d = d_scores @ candidates
        grads = self._cells(d_flat)
        for i in reversed(range(len(cells))):
            d = cell_backward(cells[i], tapes[i], dropped(d, masks[i + 1]), grads[i])
        d_embedding.index_add_(0, touched[0].input, dropped(d, masks[0]))
        return Gradients(loss, Parameters((d_embedding, d_scores.sum(0)[:, None]), d_flat), outs)

    def advance(
        self, parameters: Parameters, items: torch.Tensor, states: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See ``Network``."""
        x = parameters.tables[0].index_select(0, items)
        new = []
        for cell, h in zip(self._cells(parameters.flat), states, strict=True):
            x, _ = cell_forward(cell, x, h)
            new.append(x)
        return x, new

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        return parameters.tables[0], parameters.tables[1][:, 0]

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        return cell_sizes(self.layers, self.layers[-1])

    def _cells(self, flat: torch.Tensor) -> list[Cell]:
        return cells_of(self._sizes, flat)


def gru_network(config: GruConfig, n_items: int) -> GruNetwork:
    """The network that the configuration asks for, over items 0 … n_items − 1."""
    return GruNetwork(n_items, tuple(config.layers), config.dropout_embedding, config.dropout_hidden)
