"""What the session-parallel training loop and serving ask of a network, and what all networks share.

A network's weights are tables, of which a step touches few rows, and one flat vector, of which it uses everything.
The loop gathers the touched rows as dense blocks, lets the network compute their gradients, sums these over the ranks
and updates them; the network never sees a whole table in training, nor the other ranks.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

NO_START, SESSION_START, USER_START = 0, 1, 2  # a user's start is the start of a session, too
ScoreLoss = Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
Scorer = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Table:
    """A table of weights of which a step touches few rows."""

    name: str
    n_rows: int
    width: int
    fan: int = 0  # new rows are uniform in ±sqrt(6 / (n_rows + fan)), see ``init_rows``; 0: they are zeros


@dataclass(frozen=True)
class Mask:
    """A dropout mask that is drawn for each lane at each step."""

    width: int
    rate: float  # share that is dropped


@dataclass(frozen=True)
class Parameters:
    """All weights; in a step, those that it touches; or the gradients of either."""

    tables: tuple[torch.Tensor, ...]  # each [rows, width]
    flat: torch.Tensor


@dataclass(frozen=True)
class Batch:
    """One step: what all ranks know of all lanes, and this rank's part of B lanes that have an event."""

    inputs: torch.Tensor  # int64 [I], distinct items of all lanes' inputs (with those of ``past``)
    rows: torch.Tensor  # int64 [R], distinct: the C candidates, then the inputs that are none
    candidates: torch.Tensor  # int64 [C], distinct items of all lanes' targets and of the negatives
    n_target: torch.Tensor  # float [C], targets of lanes that are this item
    n_sampled: torch.Tensor  # float [C], additional negatives that are this item
    input: torch.Tensor  # int64 [B], places in ``inputs``
    input_row: torch.Tensor  # int64 [B], places in ``rows``
    target: torch.Tensor  # int64 [B], places in ``candidates``
    start: torch.Tensor  # int8 [B]: NO_START, SESSION_START or USER_START
    lanes: torch.Tensor  # int64 [B], the lanes' places among those of all ranks
    own: torch.Tensor | None  # int64 [B], the same among this rank's lanes; None: all of them
    n_lanes: int  # lanes of all ranks
    epoch: int  # from 1
    step: int  # of the epoch, from 0
    past: torch.Tensor  # int64 [bptt - 1, B], places in ``inputs`` of the lanes' inputs of the steps before, in order
    past_row: torch.Tensor  # int64 [bptt - 1, B], of the same in ``rows``
    past_start: torch.Tensor  # int8 [bptt - 1, B], their starts
    repeats: Repeats | None = None  # where items are repeated instead of distinct and counted
    types: torch.Tensor | None = None  # int64 [bptt, B], of the events that ``past`` and ``input`` are the items of


@dataclass(frozen=True)
class Repeats:
    """Of each item of a step the first place that has the same one: for steps whose sizes must not vary."""

    inputs: torch.Tensor  # int64 [I]
    rows: torch.Tensor  # int64 [R]
    candidates: torch.Tensor  # int64 [C]


@dataclass(frozen=True)
class Touched:
    """The rows of one table that a step needs, the same on all ranks, and this rank's places in them."""

    rows: torch.Tensor  # int64 [R], distinct
    input: torch.Tensor  # int64 [B] or, of several rows each, [B, k]; empty where inputs look nothing up
    candidates: torch.Tensor | None = None  # int64 [C] or [C, k]; None: they are the first C rows
    trained: bool = True  # False: the step reads the rows and leaves them as they are
    past: torch.Tensor | None = None  # int64 [bptt - 1, B], of ``Batch.past``; None where it looks nothing up
    first: torch.Tensor | None = None  # int64 [R], of each row the first place with the same; None: all are distinct


@dataclass(frozen=True)
class Gradients:
    """What comes of a step: the loss and its gradients, all sums over this rank's lanes."""

    loss: torch.Tensor  # float [], sum over this rank's lanes
    tables: tuple[torch.Tensor, ...]  # of what ``Network.gradients`` was given; empty where not trained
    flat: torch.Tensor
    hidden: list[torch.Tensor]  # what the next step is given: for each state the new one [B, width] at the end
    flat_part: slice = field(default_factory=lambda: slice(None))  # of the flat vector: what ``flat`` belongs to


class Network(Protocol):
    """A recurrent network that scores items.

    Attributes:
        n_items: Size of the catalogue; items are 0 … n_items − 1.
        dim: Width of a session's vector.
        tables: The tables of weights.
        flat_size: Length of the flat vector.
        state_widths: Widths of the hidden states that a lane carries.
        masks: The dropout masks, in the order in which they are drawn.
    """

    @property
    def n_items(self) -> int: ...  # noqa: D102

    @property
    def dim(self) -> int: ...  # noqa: D102

    @property
    def tables(self) -> tuple[Table, ...]: ...  # noqa: D102

    @property
    def flat_size(self) -> int: ...  # noqa: D102

    @property
    def state_widths(self) -> tuple[int, ...]: ...  # noqa: D102

    @property
    def masks(self) -> tuple[Mask, ...]: ...  # noqa: D102

    def init_flat(self, flat: torch.Tensor, generator: torch.Generator) -> None:
        """Draws new weights into the flat vector of zeros."""

    def flat_tensors(self, flat: torch.Tensor) -> dict[str, torch.Tensor]:
        """The parts of the flat vector by name, as views; together they are all of it."""

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """The rows of each table that the step needs."""

    def gradients(
        self,
        weights: Parameters,
        hidden: Sequence[torch.Tensor],
        batch: Batch,
        touched: Sequence[Touched],
        masks: Sequence[torch.Tensor | None],
        score_loss: ScoreLoss,
    ) -> Gradients:
        """Forward and backward pass of one step; the hidden states given are constants.

        Args:
            weights: The touched rows of each table and the flat vector; not to be changed.
            hidden: For each of ``gru.bptt`` steps, the latest last, and each state [B, width], as the step before left
                it: a session's start is the network's to see.
            batch: The step.
            touched: What ``touched(batch)`` said.
            masks: For each mask [B, width] of 0 and 1 / (1 − rate); None where the rate is 0.
            score_loss: Scores [B, C] → (loss summed over B, gradient of that). It may overwrite the scores.
        """

    def advance(
        self,
        parameters: Parameters,
        items: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        types: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """One step without dropout, as in serving.

        Args:
            parameters: The weights.
            items: int64 [B], the items of the current events.
            states: For each state [B, width], as the step before left it.
            start: int8 [B]: NO_START, SESSION_START or USER_START.
            types: int64 [B], codes of the events' types, where the network asks for them.

        Returns:
            The vector [B, D] whose product with an item's row of ``output`` plus its bias is the item's score, and
            the new states.
        """

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """The items' side of the scores: [n_items, D] and the bias [n_items]."""

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """What gives sessions' vectors [B, D] the scores of these items, [B, n]; items: int64 [n]."""


# ---- rows that a step touches ----------------------------------------------------------------------------------------


def rows_of_both(batch: Batch) -> Touched:
    """Of a table in which inputs and candidates share an item's row: the candidates, then inputs that are none."""
    first = batch.repeats.rows if batch.repeats else None
    return Touched(batch.rows, batch.input_row, past=batch.past_row, first=first)


def rows_of_inputs(batch: Batch) -> Touched:
    """Of a table in which the inputs alone look up an item's row."""
    first = batch.repeats.inputs if batch.repeats else None
    return Touched(batch.inputs, batch.input, past=batch.past, first=first)


def rows_of_candidates(batch: Batch) -> Touched:
    """Of a table with a row for each item as a candidate."""
    return Touched(batch.candidates, batch.input[:0], first=batch.repeats.candidates if batch.repeats else None)


# ---- gradients by autograd -------------------------------------------------------------------------------------------


def autograd_gradients(
    forward: Callable[[Parameters, Sequence[torch.Tensor]], tuple[torch.Tensor, list[torch.Tensor]]],
    weights: Parameters,
    hidden: Sequence[torch.Tensor],
    score_loss: ScoreLoss,
) -> Gradients:
    """``Network.gradients`` of a network that has only a differentiable forward pass.

    Args:
        forward: (weights, hidden) → (scores [B, C], new hidden states).
        weights: As for ``Network.gradients``, and so are the others.
        hidden: For each state [B, width].
        score_loss: The loss of the scores.
    """
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in (*weights.tables, weights.flat)]
        scores, new = forward(Parameters(tuple(leaves[:-1]), leaves[-1]), [h.detach() for h in hidden])
        loss, d_scores = score_loss(scores.detach().clone())
        *tables, flat = torch.autograd.grad(scores, leaves, d_scores, allow_unused=True, materialize_grads=True)
    return Gradients(loss, tuple(tables), flat, [h.detach() for h in new])


def dot_scorer(output: tuple[torch.Tensor, torch.Tensor], items: torch.Tensor) -> Scorer:
    """``Network.scorer`` by products with the items' rows, which it gathers once."""
    rows, bias = (part.index_select(0, items) for part in output)
    return lambda vectors: torch.addmm(bias, vectors, rows.t())


def dropped(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Dropout by a drawn mask."""
    return x if mask is None else x * mask


# ---- new and stored weights ------------------------------------------------------------------------------------------


def init_parameters(network: Network, seed: int) -> Parameters:
    """New weights on the CPU, the same for the same seed."""
    flat = torch.zeros(network.flat_size)
    network.init_flat(flat, _generator(seed, "flat"))
    return Parameters(tuple(init_rows(table, table.n_rows, seed) for table in network.tables), flat)


def init_rows(table: Table, n: int, seed: int, first: int = 0) -> torch.Tensor:
    """Rows ``first`` … ``first + n − 1`` of a new table, [n, width].

    They are uniform in ±sqrt(6 / (rows + fan)) (Glorot & Bengio 2010), where rows that are appended to ``first``
    earlier ones have these earlier ones' bound and so do not depend on how many there are.
    """
    rows = torch.zeros(n, table.width)
    if not table.fan:
        return rows
    bound = math.sqrt(6.0 / ((first or table.n_rows) + table.fan))
    return rows.uniform_(-bound, bound, generator=_generator(seed, table.name, first))


def to_tensors(network: Network, parameters: Parameters) -> dict[str, torch.Tensor]:
    """The weights by name, as they are stored; a table of width 1 as a vector."""
    tables = zip(network.tables, parameters.tables, strict=True)
    named = {t.name: (rows[:, 0] if t.width == 1 else rows).contiguous() for t, rows in tables}
    return named | {name: part.contiguous() for name, part in network.flat_tensors(parameters.flat).items()}


def from_tensors(network: Network, named: dict[str, torch.Tensor]) -> Parameters:
    """The inverse of ``to_tensors``."""
    flat = torch.empty(network.flat_size)
    for name, part in network.flat_tensors(flat).items():
        part.copy_(named[name])
    return Parameters(tuple(named[t.name].view(-1, t.width) for t in network.tables), flat)


def _generator(*parts: int | str) -> torch.Generator:
    """A generator of its own for each use of a seed."""
    return torch.Generator().manual_seed(int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "big"))
