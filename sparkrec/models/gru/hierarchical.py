"""Hierarchical GRU for sessions of known users (HRNN).

Source: Quadrana et al. 2017, "Personalizing session-based recommendations with hierarchical recurrent neural networks"
(arXiv 1706.04148). A user-level GRU takes in a session when it has ended, by its last state, and its own state begins
the user's next session (HRNN Init); in HRNN All that is an input of the whole session besides.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sparkrec.models.gru.cells import Cell, cell_forward, cell_sizes, cells_of, cells_size, init_layers, layer_tensors
from sparkrec.models.gru.protocol import (
    SESSION_START,
    USER_START,
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
class Init:
    """The layer that makes a session's first state out of the user's: tanh(W c + b)."""

    weight: torch.Tensor  # [H, user width]
    bias: torch.Tensor  # [H]


@dataclass(frozen=True)
class HierarchicalNetwork:
    """GRU layers with constrained embedding, begun by a user-level GRU. A ``protocol.Network``.

    States are those of the session's layers, then the user's. At a session's start but a user's first, the user's
    state takes in the last layer's state and gives the first ones; at a user's start all states are zeros. Gradients
    of the user-level GRU so come from the first step of each session, and in HRNN All those of its use from all.
    """

    n_items: int
    layers: tuple[int, ...]
    user_width: int
    all_steps: bool  # HRNN All
    dropout_embedding: float = 0.0
    dropout_hidden: float = 0.0

    @property
    def dim(self) -> int:
        """Width of the session's last layer."""
        return self.layers[-1]

    @property
    def tables(self) -> tuple[Table, ...]:
        """The embedding and the output bias."""
        return Table("embedding", self.n_items, self.layers[-1], self.layers[-1]), Table("bias", self.n_items, 1)

    @property
    def flat_size(self) -> int:
        """Number of all other weights and biases."""
        return sum(self._flat_sizes)

    @property
    def state_widths(self) -> tuple[int, ...]:
        """A state for each layer and the user's."""
        return *self.layers, self.user_width

    @property
    def masks(self) -> tuple[Mask, ...]:
        """Of the embedding, of each layer's output, and of the user's state when it is made."""
        return Mask(self.layers[-1], self.dropout_embedding), *[Mask(w, self.dropout_hidden) for w in self.state_widths]

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """See ``Network``."""
        cells, user, inits = self._parts(flat)
        init_layers([*cells, user], generator)
        for init in inits:
            bound = math.sqrt(6.0 / sum(init.weight.shape))
            init.weight.uniform_(-bound, bound, generator=generator)

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """See ``Network``."""
        cells, user, inits = self._parts(flat)
        named = layer_tensors(cells) | layer_tensors([user], "user")
        return named | {f"init.{i}.{name}": part for i, init in enumerate(inits) for name, part in vars(init).items()}

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

        def forward(weights: Parameters, hidden: Sequence[torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
            embedding, bias = weights.tables
            embedded = dropped(embedding.index_select(0, touched[0].input), masks[0])
            new = self._run(weights.flat, embedded, hidden, batch.start, masks[1:])
            return torch.addmm(bias.t(), new[-2], embedding[: len(batch.candidates)].t()), new

        return autograd_gradients(forward, weights, hidden, score_loss)

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
        new = self._run(parameters.flat, embedded, states, start, [None] * len(states))
        return new[-2], new

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        return parameters.tables[0], parameters.tables[1][:, 0]

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """See ``Network``."""
        return dot_scorer(self.output(parameters), items)

    def _run(
        self,
        flat: torch.Tensor,
        x: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        masks: Sequence[torch.Tensor | None],
    ) -> list[torch.Tensor]:
        """All new states, the user's last; x: [B, D], the embedded items."""
        *hidden, user = states
        cells, user_cell, inits = self._parts(flat)
        next_session, next_user = (start == SESSION_START)[:, None], (start == USER_START)[:, None]
        told = dropped(cell_forward(user_cell, hidden[-1], user)[0], masks[-1])
        user = torch.where(next_session, told, user).masked_fill(next_user, 0.0)
        x = torch.cat([x, user], dim=1) if self.all_steps else x
        new = []
        for cell, init, h, mask in zip(cells, inits, hidden, masks[:-1], strict=True):
            begun = torch.tanh(torch.addmm(init.bias, user, init.weight.t()))
            h = torch.where(next_session, begun, h).masked_fill(next_user, 0.0)
            x = dropped(cell_forward(cell, x, h)[0], mask)
            new.append(x)
        return [*new, user]

    @property
    def _sizes(self) -> list[tuple[int, int]]:
        """(input width, width) of the session's layers."""
        return cell_sizes(self.layers, self.layers[-1] + (self.user_width if self.all_steps else 0))

    @property
    def _flat_sizes(self) -> list[int]:
        """Of the session's layers, of the user's, and of the weights and the biases that begin each layer."""
        inits = [n for width in self.layers for n in (width * self.user_width, width)]
        return [cells_size(self._sizes), cells_size([(self.layers[-1], self.user_width)]), *inits]

    def _parts(self, flat: torch.Tensor) -> tuple[list[Cell], Cell, list[Init]]:
        """The session's layers, the user's, and what begins each of the former, as views into a flat vector."""
        session, user, *rest = flat.split(self._flat_sizes)
        pairs = zip(rest[::2], rest[1::2], strict=True)
        inits = [Init(weight.view(-1, self.user_width), bias) for weight, bias in pairs]
        return cells_of(self._sizes, session), cells_of([(self.layers[-1], self.user_width)], user)[0], inits
