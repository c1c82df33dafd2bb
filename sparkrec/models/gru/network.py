"""Session-parallel GRU (GRU4Rec), or LSTM: one step's forward and backward pass.

Source: Hidasi et al., "Session-based recommendations with recurrent neural networks" (arXiv 1511.06939).

A step touches few rows of the items' tables, so gradients are written out by hand for just those rows: a full table
never has one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sparkrec.models.gru.cells import (
    Cell,
    Layer,
    LstmCell,
    Tape,
    as_state,
    cell_sizes,
    cells_of,
    cells_size,
    init_layers,
    layer_backward,
    layer_forward,
    layer_tensors,
    lookup_of,
    output_of,
)
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
        return self._lookup_size + cells_size(self._sizes, LstmCell if self.cell == "lstm" else Cell)

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
        self,
        parameters: Parameters,
        items: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        types: torch.Tensor | None = None,
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
            return list[Layer](cells_of(self._sizes, flat, LstmCell))
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
