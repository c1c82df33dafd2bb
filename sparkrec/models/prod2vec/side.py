"""The side information of Meta-prod2vec: the values of items' features as further rows of the tables.

Vasile, Smirnova, Conneau 2016 ("Meta-Prod2Vec: product embeddings using side-information for recommendation", eq. 4
to 6): beside the items themselves, their side information joins input and context. For a pair of an item i and its
context j, and for each feature with the values M_i and M_j, the pairs

    M_i → j    items around, given the item's side information
    i → M_j    side information around, given the item
    M_i → M_j  side information around, given the item's
    M_i → i    the item itself, given its side information

are learnt with the weight ``side_weight``, like the pair i → j. Of an item with several values of a feature each has
an equal part of the weight. Targets are held against negatives of their own kind: items, or values of their feature.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from sparkrec.errors import InvariantError
from sparkrec.models.prod2vec.step import Pairs
from sparkrec.models.two_tower.network import Feature

_NONE = -1


@dataclass(frozen=True)
class Side:
    """What is known of the items."""

    features: tuple[Feature, ...]  # of ``two_tower.examples.feature_layout``
    codes: np.ndarray = field(repr=False)  # int32 [n_items, sum of widths], of ``item_feature_matrix``; 0: unknown

    @property
    def described(self) -> dict[str, Any]:
        """What ``model.json`` keeps, and a checkpoint is known by."""
        codes = hashlib.sha256(np.ascontiguousarray(self.codes).tobytes()).hexdigest()
        return {"features": [asdict(f) for f in self.features], "codes_sha256": codes}

    @property
    def n_rows(self) -> int:
        """Rows of the tables: items, then the values of each feature."""
        return len(self.codes) + sum(f.n_codes for f in self.features)

    @cached_property
    def rows(self) -> tuple[np.ndarray, ...]:
        """For each feature int64 [n_items, width], the table rows of the items' values; -1 where there is none."""
        found, column, first = [], 0, len(self.codes)
        for feature in self.features:
            codes = self.codes[:, column : column + feature.width].astype(np.int64)
            if codes.size and codes.max() > feature.n_codes:
                raise InvariantError(f"side feature {feature.name}: code {codes.max()} of {feature.n_codes}")
            found.append(np.where(codes > 0, codes - 1 + first, _NONE))
            column, first = column + feature.width, first + feature.n_codes
        return tuple(found)

    def counts(self, counts: torch.Tensor) -> list[tuple[int, torch.Tensor]]:
        """For each feature that any event has a value of: its first row, and its values' events int64 [n_codes]."""
        found, first = [], len(self.codes)
        for feature, rows in zip(self.features, self.rows, strict=True):
            item, column = np.nonzero(rows != _NONE)
            weights = counts.numpy()[item].astype(np.float64)
            summed = np.bincount(rows[item, column] - first, weights=weights, minlength=feature.n_codes)
            found.append((first, torch.from_numpy(summed.astype(np.int64))))
            first += feature.n_codes
        return found


def side_pairs(side: Side, item: np.ndarray, context: np.ndarray, weight: float) -> Pairs:
    """The pairs of items int64 [n] and those of their side information, as rows of the tables.

    Args:
        side: Of the items.
        item: Centres.
        context: What was taken with each.
        weight: ``side_weight``, of the pairs with side information in the loss.
    """
    every = np.ones(len(item))
    parts = [_weighted(item, context, every, 0)]
    for number, rows in enumerate(side.rows, start=1):
        own, around = (list(zip(rows[of].T, _shares(rows[of]).T, strict=True)) for of in (item, context))
        for value, share in own:
            parts += [_weighted(value, target, weight * share, 0) for target in (context, item)]
        for value, share in around:
            parts.append(_weighted(item, value, weight * share, number))
            parts += [_weighted(mine, value, weight * part * share, number) for mine, part in own]
    return Pairs(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _weighted(inputs: np.ndarray, targets: np.ndarray, weights: np.ndarray, group: int) -> Pairs:
    """The pairs with a weight."""
    kept = np.flatnonzero(weights > 0)
    groups = np.full(len(kept), group, dtype=np.int64)
    return Pairs(inputs[kept], targets[kept], weights[kept].astype(np.float32), groups)


def _shares(rows: np.ndarray) -> np.ndarray:
    """float64 [n, width], what each value of int64 [n, width] is of its item's: equal parts, 0 where there is none."""
    known = rows != _NONE
    shares: np.ndarray = known / np.maximum(known.sum(1, keepdims=True), 1)
    return shares
