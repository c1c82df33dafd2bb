"""Bloom embeddings: items share the rows of a small table, each by a few positions of its own.

Source: Serrà and Karatzoglou 2017, "Getting deep recommenders fit: Bloom embeddings for sparse binary input/output
networks" (arXiv 1706.03993). On both sides: an item's input is the sum of its rows, and its score the sum of the
scores of its positions; hence an item's row in the output matrix is the sum of its rows, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sparkrec.models.gru.around import AroundPlain
from sparkrec.models.gru.protocol import Batch, Gradients, Parameters, ScoreLoss, Scorer, Table, Touched


def positions(items: torch.Tensor, n_rows: int, n_hashes: int, seed: int) -> torch.Tensor:
    """The distinct rows of each item, a uniformly drawn subset that depends on its number and the seed alone.

    Floyd's algorithm ("Programming pearls: a sample of brilliance", 1987), its draws the item's hashes.

    Args:
        items: int64 [n].
        n_rows: Rows of the table.
        n_hashes: Rows of each item, at most ``n_rows``.
        seed: Of the hash.

    Returns:
        int64 [n, n_hashes].
    """
    chosen: list[torch.Tensor] = []
    for last in range(n_rows - n_hashes, n_rows):
        drawn = _hash(items, seed * 1_000_003 + len(chosen)) % (last + 1)
        taken = torch.zeros_like(items, dtype=torch.bool)
        for earlier in chosen:
            taken |= earlier == drawn
        chosen.append(torch.where(taken, last, drawn))
    return torch.stack(chosen, dim=1)


def _hash(items: torch.Tensor, seed: int) -> torch.Tensor:
    """SplitMix64 (Steele et al. 2014) of item and seed, without its sign bit."""
    x = (items + 1) * _signed(0x9E3779B97F4A7C15) + _signed(seed * 0xD1B54A32D192ED03)
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return (x ^ _shifted(x, 31)) & 0x7FFFFFFFFFFFFFFF


def _signed(constant: int) -> int:
    constant %= 1 << 64
    return constant - (1 << 64) if constant >> 63 else constant


def _shifted(x: torch.Tensor, bits: int) -> torch.Tensor:
    """A logical shift to the right, which torch does not have."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


@dataclass(frozen=True)
class BloomNetwork(AroundPlain):
    """A plain network with constrained embedding whose items' rows are sums of shared ones. A ``protocol.Network``."""

    n_rows: int
    n_hashes: int
    seed: int

    @property
    def tables(self) -> tuple[Table, ...]:
        """Those of the plain network with ``n_rows`` rows: positions in place of items."""
        return tuple(replace(table, n_rows=self.n_rows) for table in self.plain.tables)

    def touched(self, batch: Batch) -> tuple[Touched, ...]:
        """See ``Network``."""
        candidates = self._positions(batch.candidates)
        both = torch.cat([candidates, self._positions(batch.inputs)])
        rows, place = torch.unique(both, return_inverse=True)
        of_candidates, of_inputs = place.split([len(batch.candidates), len(batch.inputs)])
        bias_rows, bias_place = torch.unique(candidates, return_inverse=True)
        embedding = Touched(rows, of_inputs[batch.input], of_candidates)
        return embedding, Touched(bias_rows, batch.input[:0], bias_place)

    def gradients(
        self,
        weights: Parameters,
        hidden: Sequence[torch.Tensor],
        batch: Batch,
        touched: Sequence[Touched],
        masks: Sequence[torch.Tensor | None],
        score_loss: ScoreLoss,
    ) -> Gradients:
        """See ``Network``: the plain network's gradients of the items' rows go to each of the rows summed."""
        candidates, bias_candidates = touched[0].candidates, touched[1].candidates
        assert candidates is not None and bias_candidates is not None  # as ``touched`` gives them  # noqa: PT018
        places = [torch.cat([candidates, touched[0].input]), bias_candidates]
        items = tuple(_sums(table, place) for table, place in zip(weights.tables, places, strict=True))
        inputs = len(batch.candidates) + torch.arange(len(batch.input), device=batch.input.device)
        own = [replace(touched[0], input=inputs), touched[1]]
        found = self.plain.gradients(Parameters(items, weights.flat), hidden, batch, own, masks, score_loss)
        tables = tuple(torch.zeros_like(table) for table in weights.tables)
        for table, place, grad in zip(tables, places, found.tables, strict=True):
            for column in place.unbind(1):
                table.index_add_(0, column, grad)
        return replace(found, tables=tables)

    def advance(
        self,
        parameters: Parameters,
        items: torch.Tensor,
        states: Sequence[torch.Tensor],
        start: torch.Tensor,
        types: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """See ``Network``."""
        distinct, place = torch.unique(items, return_inverse=True)
        rows = _sums(parameters.tables[0], self._positions(distinct))
        return self.plain.advance(Parameters((rows,), parameters.flat), place, states, start)

    def output(self, parameters: Parameters) -> tuple[torch.Tensor, torch.Tensor]:
        """See ``Network``."""
        places = self._positions(torch.arange(self.n_items, device=parameters.flat.device))
        return _sums(parameters.tables[0], places), _sums(parameters.tables[1], places)[:, 0]

    def scorer(self, parameters: Parameters, items: torch.Tensor) -> Scorer:
        """See ``Network``: each item's sum of the scores of its positions; no matrix of the items' rows is made."""
        table, bias = parameters.tables
        places = self._positions(items)
        return lambda vectors: _sums(torch.addmm(bias, table, vectors.t()), places).t()

    def _positions(self, items: torch.Tensor) -> torch.Tensor:
        return positions(items, self.n_rows, self.n_hashes, self.seed)


def _sums(table: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """[n, width], the sums of the rows at ``places`` [n, k]."""
    first, *others = places.unbind(1)
    total = table.index_select(0, first)
    for place in others:
        total += table.index_select(0, place)
    return total
