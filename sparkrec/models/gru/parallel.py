"""Parallel GRUs over the items' ids and over their vectors (p-RNN).

Source: Hidasi et al. 2016, "Parallel recurrent neural network architectures for feature-rich session-based
recommendations" (RecSys), below "p-RNN". Each sub-network has GRU layers and output rows of its own. The score of an
item is the sum of the sub-networks' scores: the product of their last states, side by side, with the item's output
rows, side by side, plus a bias.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from sparkrec.models.gru.cells import Cell, cell_forward, cell_sizes, cells_of, cells_size, init_layers, layer_tensors
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
    autograd_gradients,
    dot_scorer,
    dropped,
    rows_of_both,
    rows_of_candidates,
)


@dataclass(frozen=True)
class ParallelNetwork:
    """A sub-network over ids, with constrained embedding, and one for each kind of vector. A ``protocol.Network``.

    The schedules (p-RNN, sec. 3.3) say which sub-network a step trains; the others are constants in it.
    ``simultaneous``: all. ``alternating``: one an epoch, in turn. ``interleaving``: one a step, in turn. ``residual``:
    one after another, each for its share of the epochs, on the scores of the earlier ones and its own alone.
    """

    n_items: int
    layers: tuple[int, ...]
    vectors: Mapping[str, torch.Tensor]  # name → float [n_items, width]; zeros for an item without a vector
    feature_layers: tuple[int, ...]
    schedule: str = "simultaneous"
    epochs: int = 1
    dropout_embedding: float = 0.0
    dropout_hidden: float = 0.0

    @property
    def dim(self) -> int:
        """Width of the sub-networks' last layers together."""
        return self.layers[-1] + len(self.vectors) * self.feature_layers[-1]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The embedding and the output bias, both of the first sub-network; the output rows of each of the others."""
        own = Table("embedding", self.n_items, self.layers[-1], self.layers[-1]), Table("bias", self.n_items, 1)
        width = self.feature_layers[-1]
        return own + tuple(Table(f"output_{name}", self.n_items, width, width) for name in self.vectors)

    @property
    def flat_size(self) -> int:
        """Number of weights and biases of all layers."""
        return sum(self._flat_sizes)

    @property
    def state_widths(self) -> tuple[int, ...]:
        """A state for each layer of each sub-network."""
        return tuple(width for sizes in self._sizes for _, width in sizes)

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Of the embedding and of each layer's output; the items' vectors are not dropped."""
        return Mask(self.layers[-1], self.dropout_embedding), *[Mask(w, self.dropout_hidden) for w in self.state_widths]

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """See ``Network``."""
        for cells in self._cells(flat):
            init_layers(cells, generator)

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """See ``Network``."""
        prefixes = ["gru", *[f"gru_{name}" for name in self.vectors]]
        parts = zip(self._cells(flat), prefixes, strict=True)
        return {name: part for cells, prefix in parts for name, part in layer_tensors(cells, prefix).items()}

    def turn(self, epoch: int, step: int) -> int | None:
        """The sub-network that a step trains; None: all of them."""
        n = len(self.vectors) + 1
        turns = {
            "simultaneous": None,
            "alternating": (epoch - 1) % n,
            "interleaving": step % n,
            "residual": (epoch - 1) * n // self.epochs,
        }
        return turns[self.schedule]

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """See ``Network``."""
        turn = self.turn(batch.epoch, batch.step)
        of_table = [0, 0, *range(1, len(self.vectors) + 1)]  # the sub-network of each table
        candidates = rows_of_candidates(batch)
        touched = [rows_of_both(batch), *[candidates] * (len(of_table) - 1)]
        return tuple(replace(t, trained=turn in (None, i)) for t, i in zip(touched, of_table, strict=True))

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
        turn = self.turn(batch.epoch, batch.step)

        def forward(weights: Parameters, hidden: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            embedded = dropped(weights.tables[0].index_select(0, touched[0].input), masks[0])
            ran = self._run(weights.flat, embedded, batch.inputs[batch.input], hidden, batch.start, masks[1:])
            outputs = [weights.tables[0][: len(batch.candidates)], *weights.tables[2:]]
            scores = [vector @ rows.t() for vector, rows in zip(ran[0], outputs, strict=True)]
            if self.schedule == "residual" and turn is not None:
                scores = scores[: turn + 1]  # the later ones have learnt nothing yet
            scores = [s if turn in (None, i) else s.detach() for i, s in enumerate(scores)]
            return torch.stack(scores).sum(0) + weights.tables[1].t(), ran[1]

        found = autograd_gradients(forward, weights, hidden, score_loss)
        if turn is None:
            return found
        begin = sum(self._flat_sizes[:turn])
        part = slice(begin, begin + self._flat_sizes[turn])
        tables = tuple(g if t.trained else g[:0] for g, t in zip(found.tables, touched, strict=True))
        return Gradients(found.loss, tables, found.flat[part], found.hidden, part)

    def advance(
        self,
        parameters: Parameters,
        items: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        types: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See ``Network``."""
        embedded = parameters.tables[0].index_select(0, items)
        vectors, new = self._run(parameters.flat, embedded, items, states, start, [None] * len(states))
        return torch.cat(vectors, dim=1), new

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        embedding, bias, *others = parameters.tables
        return torch.cat([embedding, *others], dim=1), bias[:, 0]

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """See ``Network``."""
        return dot_scorer(self.output(parameters), items)

    def _run(
        self,
        flat: torch.Tensor,
        embedded: torch.Tensor,
        items: torch.Tensor,
        hidden: Sequence[torch.Tensor],
        start: torch.Tensor,
        masks: Sequence[torch.Tensor | None],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The last state of each sub-network, and all states."""
        begins = (start != NO_START)[:, None]
        inputs = [embedded, *[vectors.index_select(0, items) for vectors in self.vectors.values()]]
        last, new = [], []
        states = zip(hidden, masks, strict=True)
        for x, cells in zip(inputs, self._cells(flat), strict=True):
            for cell in cells:
                h, mask = next(states)
                x = dropped(cell_forward(cell, x, h.masked_fill(begins, 0.0))[0], mask)
                new.append(x)
            last.append(x)
        return last, new

    @property
    def _sizes(self) -> list[list[tuple[int, int]]]:
        """(input width, width) of the layers of each sub-network."""
        features = [cell_sizes(self.feature_layers, vectors.shape[1]) for vectors in self.vectors.values()]
        return [cell_sizes(self.layers, self.layers[-1]), *features]

    @property
    def _flat_sizes(self) -> list[int]:
        return [cells_size(sizes) for sizes in self._sizes]

    def _cells(self, flat: torch.Tensor) -> list[list[Cell]]:
        parts = flat.split(self._flat_sizes)
        return [cells_of(sizes, part) for sizes, part in zip(self._sizes, parts, strict=True)]
