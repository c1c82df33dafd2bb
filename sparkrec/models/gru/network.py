"""Session-parallel GRU (GRU4Rec), or LSTM: layers, one step's forward and backward pass.

Source: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939); the LSTM's
cell is that of Gers et al., "Learning to forget" (2000).

A step touches few rows of the items' tables, so gradients are written out by hand for just those rows: a full table
never has one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sparkrec.models.gru.protocol import (
    NO_START,
    Batch,
    Gradients,
    Mask,
    Parameters,
    ScoreLoss,
    Scorer,
    Table,
    Touched,
    dot_scorer,
    dropped,
    rows_of_both,
    rows_of_candidates,
    rows_of_inputs,
)
from sparkrec.models.gru.settings import GruConfig

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
    return list(zip((n_in, *layers), layers, strict=False))


def cells_size(sizes: Sequence[tuple[int, int]], gates: int = 3) -> int:
    """Number of weights and biases of layers of these (input width, width)."""
    return sum(gates * width * (n_in + width + 2) for n_in, width in sizes)


def cells_of(sizes: Sequence[tuple[int, int]], flat: torch.Tensor) -> list[Cell]:
    """The layers as views into a flat vector (of weights, or of their gradients)."""
    return [Cell(*parts) for parts in _cell_parts(sizes, flat, 3)]


def _cell_parts(sizes: Sequence[tuple[int, int]], flat: torch.Tensor, gates: int) -> list[tuple[torch.Tensor, ...]]:
    """Of each layer the weights of inputs and states and the biases of both, with the gates stacked."""
    heights = [gates * width for _, width in sizes]
    lengths = [n for (n_in, w), h in zip(sizes, heights, strict=True) for n in (h * n_in, h * w, h, h)]
    parts = iter(flat.split_with_sizes(lengths))
    return [
        (next(parts).view(h, n_in), next(parts).view(h, w), next(parts), next(parts))
        for (n_in, w), h in zip(sizes, heights, strict=True)
    ]


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
    torch.sum(d_i, 0, out=grads.bias_ih)
    torch.sum(d_h, 0, out=grads.bias_hh)
    torch.mm(d_i.t(), tape.x, out=grads.weight_ih)
    torch.mm(d_h.t(), tape.h, out=grads.weight_hh)
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
class LstmCell:
    """One LSTM layer; the gates are stacked in the order input, forget, cell, output, as in ``torch.nn.LSTMCell``.

    Its state [B, 2H] is the output h and, beside it, the cell's own state c.
    """

    weight_ih: torch.Tensor  # [4H, in]
    weight_hh: torch.Tensor  # [4H, H]
    bias_ih: torch.Tensor  # [4H]
    bias_hh: torch.Tensor  # [4H]


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


def lstm_cells_of(sizes: Sequence[tuple[int, int]], flat: torch.Tensor) -> list[LstmCell]:
    """As ``cells_of``, of LSTM layers."""
    return [LstmCell(*parts) for parts in _cell_parts(sizes, flat, 4)]


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
    torch.sum(d_gates, 0, out=grads.bias_ih)
    grads.bias_hh.copy_(grads.bias_ih)
    torch.mm(d_gates.t(), tape.x, out=grads.weight_ih)
    torch.mm(d_gates.t(), tape.h, out=grads.weight_hh)
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
            for gate in matrix.chunk(_gates(layer)):
                bound = math.sqrt(6.0 / sum(gate.shape))
                gate.uniform_(-bound, bound, generator=generator)
        if isinstance(layer, LstmCell):
            layer.bias_ih.chunk(4)[1].fill_(1.0)


def _gates(layer: Layer) -> int:
    return 4 if isinstance(layer, LstmCell) else 3


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


# ---- network ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class GruNetwork:
    """GRU layers between the items of a session and the scores of the next one. A ``protocol.Network``.

    ``embedding`` says how an input item enters: by its row of the output's matrix (constrained), by a row of a matrix
    of its own, ``embedding_dim`` wide (separate), or as a one-hot vector, whose product with the first layer's
    weights is a look-up (none; dropout of the embedding then acts on the first layer's output, as the authors have it).

    An LSTM's states hold the output and, beside it, the cell's own state, which no dropout touches.
    """

    n_items: int
    layers: tuple[int, ...]
    embedding: str = "constrained"
    embedding_dim: int = 0
    dropout_embedding: float = 0.0
    dropout_hidden: float = 0.0
    bptt: int = 1
    cell: str = "gru"  # or lstm
    frozen: bool = False  # the rows of a separate embedding stay as they are

    @property
    def dim(self) -> int:
        """Width of the last layer."""
        return self.layers[-1]

    @property
    def tables(self) -> tuple[Table, ...]:
        """Inputs, then the output's matrix, which is the same table if constrained, then its bias."""
        n, width, dim = self.n_items, self.layers[0], self.layers[-1]
        bias = Table("bias", n, 1)
        if self.embedding == "constrained":
            return Table("embedding", n, dim, dim), bias
        output = Table("output", n, dim, dim)
        if self.embedding == "separate":
            return Table("embedding", n, self.embedding_dim, self.embedding_dim), output, bias
        return Table("input_gates", n, 3 * width, width), output, bias

    @property
    def flat_size(self) -> int:
        """Number of weights and biases of the layers."""
        return self._lookup_size + cells_size(self._sizes, 4 if self.cell == "lstm" else 3)

    @property
    def state_widths(self) -> tuple[int, ...]:
        """A state for each layer; an LSTM's is twice as wide."""
        return tuple(2 * width for width in self.layers) if self.cell == "lstm" else self.layers

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Of each step's embedding and of each layer's output; without an embedding of each layer's output alone.

        The steps that gradients go back over share the masks of the layers' outputs.
        """
        first = self._sizes[0][0] if self._sizes else self.layers[0]
        layers = [Mask(w, self.dropout_hidden) for _, w in self._sizes]
        if self.embedding == "none":
            return Mask(first, self.dropout_embedding), *layers
        return *[Mask(first, self.dropout_embedding)] * self.bptt, *layers

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """See ``Network``."""
        init_layers(self._layers(flat), generator)

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """See ``Network``."""
        return layer_tensors(self._layers(flat), self.cell)

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """See ``Network``."""
        candidates = rows_of_candidates(batch)
        if self.embedding == "constrained":
            return rows_of_both(batch), candidates
        return replace(rows_of_inputs(batch), trained=not self.frozen), candidates, candidates

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
        layers = self._layers(weights.flat)
        one_hot = self.embedding == "none"
        x_masks, layer_masks = ([None] * self.bptt, masks) if one_hot else (masks[: self.bptt], masks[self.bptt :])
        past = touched[0].past
        inputs = [
            *([] if past is None else past),
            touched[0].input,
        ]  # of each step gradients go back over, oldest first
        begins = [(start != NO_START)[:, None] for start in (*batch.past_start, batch.start)]
        embedded = [
            dropped(weights.tables[0].index_select(0, rows), mask) for rows, mask in zip(inputs, x_masks, strict=True)
        ]
        states, tapes = self._forward(layers, embedded, hidden[: len(layers)], begins, layer_masks)
        x = output_of(layers[-1], states[-1])
        items, bias = weights.tables[-2][: len(batch.candidates)], weights.tables[-1]
        loss, d_scores = score_loss((x @ items.t()).add_(bias.t()))  # addmm takes longer
        d_flat, d_embedded = self._backward(layers, d_scores @ items, tapes, begins, layer_masks, weights.flat)
        d_inputs = torch.cat([dropped(d, mask) for d, mask in zip(d_embedded, x_masks, strict=True)])
        tables = self._table_gradients(weights, d_scores, x, torch.cat(inputs), d_inputs)
        return Gradients(loss, tables, d_flat, [*hidden[len(layers) :], *states])

    def _forward(
        self,
        layers: Sequence[Layer],
        inputs: Sequence[torch.Tensor],
        states: Sequence[torch.Tensor],
        begins: Sequence[torch.Tensor],
        masks: Sequence[torch.Tensor | None],
    ) -> tuple[list[torch.Tensor], list[list[Tape]]]:
        """The layers over some steps, which share their masks of the layers' outputs.

        Args:
            layers: The first one first.
            inputs: Of each step [B, in].
            states: Of each layer [B, its width], before the first step.
            begins: Of each step bool [B, 1], where a session begins: there the states are 0.
            masks: Of each layer's output.

        Returns:
            The states after the last step, and for each step each layer's tape.
        """
        states, tapes = list(states), []
        wide = [as_state(layer, mask, 1.0) for layer, mask in zip(layers, masks, strict=True)]
        for x, begin in zip(inputs, begins, strict=True):
            of_step = []
            for i, layer in enumerate(layers):
                state, tape = layer_forward(layer, x, states[i].masked_fill(begin, 0.0))
                states[i] = dropped(state, wide[i])
                x = output_of(layer, states[i])
                of_step.append(tape)
            tapes.append(of_step)
        return states, tapes

    def _backward(
        self,
        layers: Sequence[Layer],
        d: torch.Tensor,
        tapes: Sequence[Sequence[Tape]],
        begins: Sequence[torch.Tensor],
        masks: Sequence[torch.Tensor | None],
        flat: torch.Tensor,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Backpropagation through time: of the last step's output alone there is a loss, whose gradient is d [B, H].

        What reaches a layer's output at a step: from the layer above at that step (for the last layer at the last
        step: d), and from the layer's own state at the step after, unless a session began there.

        Returns:
            The gradient of the flat vector, and of each step's input [B, in].
        """
        d_flat, d_inputs = torch.zeros_like(flat), list[torch.Tensor]()
        of_states: list[torch.Tensor | None] = [None] * len(layers)  # by the step after
        from_above: torch.Tensor | None = d
        wide = [as_state(layer, mask, 1.0) for layer, mask in zip(layers, masks, strict=True)]
        for step in reversed(range(len(tapes))):
            part = torch.empty_like(flat)
            grads = self._layers(part)
            for i in reversed(range(len(layers))):
                d_out = dropped(_both(of_states[i], as_state(layers[i], from_above, 0.0)), wide[i])
                from_above, of_state = layer_backward(layers[i], tapes[step][i], d_out, grads[i], step > 0)
                of_states[i] = None if of_state is None else of_state.masked_fill_(begins[step], 0.0)
            d_flat += part
            d_inputs.append(_both(from_above, None))
            from_above = None
        return d_flat, d_inputs[::-1]

    def _table_gradients(
        self,
        weights: Parameters,
        d_scores: torch.Tensor,
        vectors: torch.Tensor,
        inputs: torch.Tensor,
        d_inputs: torch.Tensor,
    ) -> tuple[torch.Tensor, ...]:
        """The gradients of the tables' touched rows, of which the inputs' are ``inputs``."""
        d_bias = d_scores.sum(0, keepdim=True).t()
        if self.frozen:
            return weights.tables[0][:0], d_scores.t() @ vectors, d_bias
        d_input = torch.zeros_like(weights.tables[0])
        if self.embedding == "constrained":  # one table: the candidates are its first rows
            torch.mm(d_scores.t(), vectors, out=d_input[: d_scores.shape[1]])
            return d_input.index_add_(0, inputs, d_inputs), d_bias
        return d_input.index_add_(0, inputs, d_inputs), d_scores.t() @ vectors, d_bias

    def advance(
        self, parameters: Parameters, items: torch.Tensor, states: Sequence[torch.Tensor], start: torch.Tensor
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See ``Network``."""
        begins, new = (start != NO_START)[:, None], list[torch.Tensor]()
        x = parameters.tables[0].index_select(0, items)
        for layer, h in zip(self._layers(parameters.flat), states, strict=True):
            state, _ = layer_forward(layer, x, h.masked_fill(begins, 0.0))
            x = output_of(layer, state)
            new.append(state)
        return x, new

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        return parameters.tables[-2], parameters.tables[-1][:, 0]

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """See ``Network``."""
        return dot_scorer(self.output(parameters), items)

    @cached_property
    def _sizes(self) -> list[tuple[int, int]]:
        """(input width, width) of the layers that have an input matrix."""
        if self.embedding == "none":
            return cell_sizes(self.layers[1:], self.layers[0])
        return cell_sizes(self.layers, self.tables[0].width)

    @cached_property
    def _lookup_size(self) -> int:
        return 3 * self.layers[0] * (self.layers[0] + 1) if self.embedding == "none" else 0

    def _layers(self, flat: torch.Tensor) -> list[Layer]:
        """The layers as views into a flat vector."""
        if self.cell == "lstm":
            return list[Layer](lstm_cells_of(self._sizes, flat))
        if not self._lookup_size:
            return list[Layer](cells_of(self._sizes, flat))
        first, rest = flat.split([self._lookup_size, len(flat) - self._lookup_size])
        return [lookup_of(self.layers[0], first), *cells_of(self._sizes, rest)]


def _both(one: torch.Tensor | None, other: torch.Tensor | None) -> torch.Tensor:
    """The sum of what there is."""
    there = [part for part in (one, other) if part is not None]
    return there[0] if len(there) == 1 else there[0] + there[1]


def gru_network(config: GruConfig, n_items: int) -> GruNetwork:
    """The network that the configuration asks for, over items 0 … n_items − 1."""
    return GruNetwork(
        n_items,
        tuple(config.layers),
        config.embedding,
        config.embedding_dim,
        config.dropout_embedding,
        config.dropout_hidden,
        config.bptt,
        config.cell,
        config.pretrained != "none" and not config.pretrained_tuned,
    )
