"""The layers of recurrent networks: one step's forward pass, and the backward pass written out by hand.

Sources: Cho et al. (arXiv 1406.1078) for the GRU; the LSTM's cell is that of Gers et al., "Learning to forget" (2000).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

# ---- layers ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One GRU layer; the gates are stacked in the order reset, update, new, as in ``torch.nn.GRUCell``."""

    weight_ih: torch.Tensor  # [gates · H, in]
    weight_hh: torch.Tensor  # [gates · H, H]
    bias_ih: torch.Tensor  # [gates · H]
    bias_hh: torch.Tensor  # [gates · H]
    gates = 3  # of the class


C = TypeVar("C", bound=Cell)


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
    return list(zip((n_in, *layers), layers, strict=False))


def cells_size(sizes: Sequence[tuple[int, int]], kind: type[Cell] = Cell) -> int:
    """Number of weights and biases of layers of these (input width, width)."""
    return sum(kind.gates * width * (n_in + width + 2) for n_in, width in sizes)


def cells_of(sizes: Sequence[tuple[int, int]], flat: torch.Tensor, kind: type[C] = Cell) -> list[C]:  # type: ignore[assignment]
    """The layers as views into a flat vector (of weights, or of their gradients)."""
    heights = [kind.gates * width for _, width in sizes]
    lengths = [n for (n_in, w), h in zip(sizes, heights, strict=True) for n in (h * n_in, h * w, h, h)]
    parts = iter(flat.split_with_sizes(lengths))
    return [
        kind(next(parts).view(h, n_in), next(parts).view(h, w), next(parts), next(parts))
        for (n_in, w), h in zip(sizes, heights, strict=True)
    ]


def _write(grads: Cell, x: torch.Tensor, h: torch.Tensor, d_x: torch.Tensor, d_h: torch.Tensor) -> None:
    """Writes a layer's gradient: d_x and d_h [B, gates · H] are those of what inputs and states give to the gates."""
    torch.sum(d_x, 0, out=grads.bias_ih)
    torch.sum(d_h, 0, out=grads.bias_hh)
    torch.mm(d_x.t(), x, out=grads.weight_ih)
    torch.mm(d_h.t(), h, out=grads.weight_hh)


def cell_forward(cell: Cell, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, CellTape]:
    """One step of a layer, as ``torch.nn.GRUCell``: h' = (1 - z) n + z h. x: [B, in], h: [B, H] → [B, H]."""
    of_input = torch.addmm(cell.bias_ih, x, cell.weight_ih.t())
    of_hidden = torch.addmm(cell.bias_hh, h, cell.weight_hh.t())
    i_r, i_z, i_n = of_input.chunk(3, dim=1)
    h_r, h_z, h_n = of_hidden.chunk(3, dim=1)
    reset, update = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    new = torch.tanh(torch.addcmul(i_n, reset, h_n))
    return torch.lerp(new, h, update), CellTape(x, h, reset, update, new, h_n)


def cell_backward(
    cell: Cell, tape: CellTape, d_out: torch.Tensor, grads: Cell, recurrent: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Writes the layer's gradient into ``grads``; returns that of x [B, in] and, where asked for, that of h [B, H]."""
    d_new = d_out * (1 - tape.update) * (1 - tape.new * tape.new)
    d_update = d_out * (tape.h - tape.new) * tape.update * (1 - tape.update)
    d_reset = d_new * tape.hidden_new * tape.reset * (1 - tape.reset)
    d_i = torch.cat([d_reset, d_update, d_new], dim=1)
    d_h = torch.cat([d_reset, d_update, d_new * tape.reset], dim=1)
    _write(grads, tape.x, tape.h, d_i, d_h)
    through = torch.addcmul(d_h @ cell.weight_hh, d_out, tape.update) if recurrent else None
    return d_i @ cell.weight_ih, through


# ---- a first layer without an embedding ------------------------------------------------------------------------------


@dataclass(frozen=True)
class LookupCell:
    """A GRU layer over one-hot inputs, which look their share of the gates up; as GRU4Rec's authors write it.

    Unlike ``Cell``, and as in Cho et al. (arXiv 1406.1078), the reset gate acts on h before its product with the
    weights of the new gate, and there is one bias.
    """

    weight_hh: torch.Tensor  # [3H, H]: reset, update, new
    bias: torch.Tensor  # [3H]
    gates = 3  # of the class


@dataclass(frozen=True)
class LookupTape:
    """What the layer's backward pass needs of its forward pass; each [B, H]."""

    h: torch.Tensor
    reset: torch.Tensor
    update: torch.Tensor
    new: torch.Tensor
    reset_h: torch.Tensor


def lookup_forward(cell: LookupCell, gates: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, LookupTape]:
    """One step: h' = (1 - z) n + z h. gates: [B, 3H], the inputs' rows; h: [B, H] → [B, H]."""
    width = h.shape[1]
    i_r, i_z, i_n = (gates + cell.bias).chunk(3, dim=1)
    h_r, h_z = (h @ cell.weight_hh[: 2 * width].t()).chunk(2, dim=1)
    reset, update = torch.sigmoid(i_r + h_r), torch.sigmoid(i_z + h_z)
    reset_h = reset * h
    new = torch.tanh(torch.addmm(i_n, reset_h, cell.weight_hh[2 * width :].t()))
    return torch.lerp(new, h, update), LookupTape(h, reset, update, new, reset_h)


def lookup_backward(
    cell: LookupCell, tape: LookupTape, d_out: torch.Tensor, grads: LookupCell, recurrent: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Writes the layer's gradient into ``grads``; returns that of the inputs' rows [B, 3H] and, if asked for, of h."""
    width = d_out.shape[1]
    d_new = d_out * (1 - tape.update) * (1 - tape.new * tape.new)
    d_update = d_out * (tape.h - tape.new) * tape.update * (1 - tape.update)
    d_reset_h = d_new @ cell.weight_hh[2 * width :]
    d_reset = d_reset_h * tape.h * tape.reset * (1 - tape.reset)
    d_gates = torch.cat([d_reset, d_update, d_new], dim=1)
    torch.mm(d_gates[:, : 2 * width].t(), tape.h, out=grads.weight_hh[: 2 * width])
    torch.mm(d_new.t(), tape.reset_h, out=grads.weight_hh[2 * width :])
    torch.sum(d_gates, 0, out=grads.bias)
    if not recurrent:
        return d_gates, None
    through = d_gates[:, : 2 * width] @ cell.weight_hh[: 2 * width]
    return d_gates, through.addcmul_(d_out, tape.update).addcmul_(d_reset_h, tape.reset)


def lookup_of(width: int, flat: torch.Tensor) -> LookupCell:
    """The layer as views into a flat vector of 3 width (width + 1)."""
    return LookupCell(flat[: -3 * width].view(3 * width, width), flat[-3 * width :])


# ---- an LSTM layer ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LstmCell(Cell):
    """One LSTM layer; the gates are stacked in the order input, forget, cell, output, as in ``torch.nn.LSTMCell``.

    Its state [B, 2H] is the output h and, beside it, the cell's own state c.
    """

    gates = 4


@dataclass(frozen=True)
class LstmTape:
    """What the layer's backward pass needs of its forward pass."""

    x: torch.Tensor  # [B, in]
    h: torch.Tensor  # [B, H]; so are the others
    c: torch.Tensor
    taken: torch.Tensor  # the input gate
    kept: torch.Tensor  # the forget gate
    new: torch.Tensor  # what the input gate lets in
    shown: torch.Tensor  # the output gate
    told: torch.Tensor  # tanh c'


def lstm_forward(cell: LstmCell, x: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, LstmTape]:
    """One step, as ``torch.nn.LSTMCell``: c' = f c + i g, h' = o tanh c'. x: [B, in], state: [B, 2H] → [B, 2H]."""
    h, c = state.chunk(2, dim=1)
    gates = torch.addmm(cell.bias_ih, x, cell.weight_ih.t()) + torch.addmm(cell.bias_hh, h, cell.weight_hh.t())
    i, f, g, o = gates.chunk(4, dim=1)
    taken, kept, new, shown = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    after = torch.addcmul(kept * c, taken, new)
    told = torch.tanh(after)
    return torch.cat([shown * told, after], dim=1), LstmTape(x, h, c, taken, kept, new, shown, told)


def lstm_backward(
    cell: LstmCell, tape: LstmTape, d_state: torch.Tensor, grads: LstmCell, recurrent: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """As ``cell_backward``; the gradients of the states are [B, 2H], like the states."""
    d_h, d_c = d_state.chunk(2, dim=1)
    d_after = torch.addcmul(d_c, d_h * tape.shown, 1 - tape.told * tape.told)
    d_gates = torch.cat(
        [
            d_after * tape.new * tape.taken * (1 - tape.taken),
            d_after * tape.c * tape.kept * (1 - tape.kept),
            d_after * tape.taken * (1 - tape.new * tape.new),
            d_h * tape.told * tape.shown * (1 - tape.shown),
        ],
        dim=1,
    )
    _write(grads, tape.x, tape.h, d_gates, d_gates)
    through = torch.cat([d_gates @ cell.weight_hh, d_after * tape.kept], dim=1) if recurrent else None
    return d_gates @ cell.weight_ih, through


# ---- any layer -------------------------------------------------------------------------------------------------------

Layer = Cell | LookupCell | LstmCell
Tape = CellTape | LookupTape | LstmTape


def init_layers(layers: Sequence[Layer], generator: torch.Generator) -> None:
    """Draws new weights in place; biases stay as they are, but for the forget gate's of an LSTM.

    The matrix of each gate by itself is uniform in ±sqrt(6 / (in + out)) (Glorot & Bengio 2010). A forget gate's bias
    is 1 (Jozefowicz et al. 2015, "An empirical exploration of recurrent network architectures", sec. 2.2): it lets the
    state of a new layer pass.
    """
    for layer in layers:
        for matrix in (m for m in vars(layer).values() if m.dim() == 2):
            for gate in matrix.chunk(layer.gates):
                bound = math.sqrt(6.0 / sum(gate.shape))
                gate.uniform_(-bound, bound, generator=generator)
        if isinstance(layer, LstmCell):
            layer.bias_ih.chunk(4)[1].fill_(1.0)


def output_of(layer: Layer, state: torch.Tensor) -> torch.Tensor:
    """What a layer's state [B, its width] gives to the next layer: [B, H]."""
    return state[:, : state.shape[1] // 2] if isinstance(layer, LstmCell) else state


def as_state(layer: Layer, of_output: torch.Tensor | None, rest: float) -> torch.Tensor | None:
    """What belongs to a layer's output [B, H] as wide as its state: an LSTM's c has ``rest`` everywhere."""
    if of_output is None or not isinstance(layer, LstmCell):
        return of_output
    return torch.cat([of_output, torch.full_like(of_output, rest)], dim=1)


def layer_tensors(layers: Sequence[Layer], prefix: str = "gru") -> dict[str, torch.Tensor]:
    """The layers' weights by name."""
    return {f"{prefix}.{i}.{name}": weight for i, layer in enumerate(layers) for name, weight in vars(layer).items()}


def layer_forward(layer: Layer, x: torch.Tensor, h: torch.Tensor) -> tuple[torch.Tensor, Tape]:
    """One step of a layer of any kind; h: its state."""
    if isinstance(layer, LookupCell):
        return lookup_forward(layer, x, h)
    return lstm_forward(layer, x, h) if isinstance(layer, LstmCell) else cell_forward(layer, x, h)


def layer_backward(
    layer: Layer, tape: Tape, d_out: torch.Tensor, grads: Layer, recurrent: bool = False
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The backward pass of a layer of any kind; its tape and gradients are of the same kind."""
    if isinstance(layer, LookupCell):
        return lookup_backward(layer, tape, d_out, grads, recurrent)  # type: ignore[arg-type]
    if isinstance(layer, LstmCell):
        return lstm_backward(layer, tape, d_out, grads, recurrent)  # type: ignore[arg-type]
    return cell_backward(layer, tape, d_out, grads, recurrent)  # type: ignore[arg-type]
