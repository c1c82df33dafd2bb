"""The types of the events as inputs beside the items: a view, a cart and a purchase of one item say different things.

A type is a feature of the event. Its embedding is learnt and added to the item's: to the first layer it is what a
one-hot vector of the type beside the item's is (the concatenated input of Hidasi et al. 2016, "Parallel recurrent
neural network architectures for feature-rich session-based recommendations"). What type the next event is of is not
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch

from sparkrec.models.gru.around import AroundPlain
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import Batch, Gradients, Parameters, ScoreLoss, Scorer, Table, Touched

TYPE_ROWS = "event_types"  # the table of the types' embeddings


@dataclass(frozen=True)
class TypedNetwork(AroundPlain):
    """A plain network whose inputs are sums: an item's row and the row of the event's type. A ``protocol.Network``.

    Types are codes 0 … n_types − 1, of which 0 is a type that training did not know. The rows begin at 0, so a type
    that no event had changes nothing. A step touches all of them, as there are few.
    """

    n_types: int

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those of the plain network, then the types', as wide as the inputs'."""
        return *self.plain.tables, Table(TYPE_ROWS, self.n_types, self.plain.tables[0].width)

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """See ``Network``."""
        every = torch.arange(self.n_types, device=batch.input.device)
        return *self.plain.touched(batch), Touched(every, batch.input[:0])

    def gradients(
        self,
        weights: Parameters,
        hidden: Sequence[torch.Tensor],
        batch: Batch,
        touched: Sequence[Touched],
        masks: Sequence[torch.Tensor | None],
        score_loss: ScoreLoss,
    ) -> Gradients:
        """See ``Network``: the plain network runs on a row for each input, whose gradient is the item's and the type's.

        Raises:
            ValueError: The batch has no types.
        """
        if batch.types is None:
            raise ValueError("a network with event types needs those of the inputs")
        items, *outputs, types = weights.tables
        kept = len(batch.candidates) if self.plain.embedding == "constrained" else 0  # rows that are outputs, too
        places = touched[0].input[None]
        places = places if touched[0].past is None else torch.cat([touched[0].past, places])
        inputs = (items[places] + types[batch.types]).flatten(0, 1)
        own = kept + torch.arange(len(inputs), device=inputs.device).view_as(places)
        first = replace(touched[0], input=own[-1], past=own[:-1])
        tables = torch.cat([items[:kept], inputs]), *outputs
        given = Parameters(tables, weights.flat), hidden, batch, [first, *touched[1:-1]], masks, score_loss
        found = self._tuned.gradients(*given)
        of_items, of_inputs = found.tables[0].split([kept, len(inputs)])
        d_types = torch.zeros_like(types).index_add_(0, batch.types.flatten(), of_inputs)
        if self.plain.frozen:
            return replace(found, tables=(items[:0], *found.tables[1:], d_types))
        d_items = torch.zeros_like(items).index_add_(0, places.flatten(), of_inputs)
        d_items[:kept] += of_items
        return replace(found, tables=(d_items, *found.tables[1:], d_types))

    def advance(
        self,
        parameters: Parameters,
        items: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        types: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See ``Network``.

        Raises:
            ValueError: There are no types.
        """
        if types is None:
            raise ValueError("a network with event types needs those of the inputs")
        of_items, *outputs, of_types = parameters.tables
        known = torch.where(types < self.n_types, types, 0)
        rows = of_items.index_select(0, items) + of_types.index_select(0, known)
        every = torch.arange(len(items), device=items.device)
        return self.plain.advance(Parameters((rows, *outputs), parameters.flat), every, states, start)

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        return self.plain.output(_without_types(parameters))

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """See ``Network``."""
        return self.plain.scorer(_without_types(parameters), items)

    @cached_property
    def _tuned(self) -> GruNetwork:
        """The plain network, which gives the inputs' gradients also where the items' rows stay as they are."""
        return replace(self.plain, frozen=False)


def _without_types(parameters: Parameters) -> Parameters:
    return Parameters(parameters.tables[:-1], parameters.flat)
