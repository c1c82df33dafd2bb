"""What training minimises on examples of predicted ratings; tensors only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from sparkrec.models.ratings.biases import Biases, Known
from sparkrec.models.ratings.network import Inputs, RatingNetwork, mean_rows, of_reviews, statistics_of
from sparkrec.models.ratings.reviews import Reviews
from sparkrec.models.ratings.settings import RatingsConfig

if TYPE_CHECKING:
    from sparkrec.models.ratings.train import Examples, Material

EDGE = 0.02  # logistic: expected ratings are this far from the ends of the scale, as a share of it


def expected(biases: Biases, known: Known, config: RatingsConfig) -> np.ndarray:
    """float64 [n]: the mean, and the biases where they count."""
    found: np.ndarray = np.full(known.user_bias.shape, biases.mean)
    return found + known.user_bias + known.item_bias if config.biases else found


def summed_loss(
    network: RatingNetwork, block: Tensor, place: Tensor, vectors: Tensor | None, data: Material, batch: Examples
) -> Tensor:
    """The loss of the examples, with the penalty on their embeddings, summed.

    Args:
        network: The dense weights.
        block: float32 [rows, width] of the table.
        place: int64 [n, 2 + codes], of users, items and codes in the block; -1: none.
        vectors: float32 [n, width] of the items.
        data: What the rank trains on.
        batch: The examples.
    """
    shape, config, device = data.shape, data.config, block.device
    there = (place[:, :2] >= 0)[:, :, None]
    embedded = block[place[:, :2].clamp(min=0)] * there
    user, item = embedded[:, 0], embedded[:, 1]
    features = mean_rows(block, place[:, 2:], [f.width for f in shape.features])
    known = [torch.from_numpy(np.asarray(part, dtype=np.float32)).to(device) for part in batch.known]
    texts = None
    if data.reviews is not None:
        texts = _texts(network, data.reviews, batch, device)
    keep = torch.from_numpy(batch.keep).to(device) if shape.dropped and config.dropout else None
    statistics = statistics_of(known[0], known[1], known[2], known[3], data.scale)
    found = network(Inputs(user, item, features, statistics, vectors, texts, keep))
    base = torch.from_numpy(expected(data.biases, batch.known, config).astype(np.float32)).to(device)
    rating = torch.from_numpy(batch.rating.astype(np.float32)).to(device)
    return _errors(found, base, rating, data).sum() + _penalty(user, item, batch, data)


def _errors(found: Tensor, base: Tensor, rating: Tensor, data: Material) -> Tensor:
    """float32 [n], in deviations."""
    low, high, loss = data.biases.low, data.biases.high, data.config.loss
    if loss == "logistic":
        return F.binary_cross_entropy_with_logits(
            logit(base, low, high) + found, (rating - low) / max(high - low, 1e-6), reduction="none"
        )
    error = found - (rating - base) / data.scale
    return error.abs() if loss == "absolute" else error * error


def logit(base: Tensor, low: float, high: float) -> Tensor:
    """The logit of an expected rating as a share of the scale, ``EDGE`` within its ends."""
    return torch.logit(((base - low) / max(high - low, 1e-6)).clamp(EDGE, 1 - EDGE))


def _penalty(user: Tensor, item: Tensor, batch: Examples, data: Material) -> Tensor:
    """weighted: λ (|p|² + |q|²) for each rating, so n_u λ |p_u|² in all (ALS-WR); priors: σ²/σ_u² |p_u|² once."""
    config, sizes = data.config, [(part * part).sum(1) for part in (user, item)]
    if config.penalty == "weighted":
        return config.reg * (sizes[0] + sizes[1]).sum()
    total = user.new_zeros(())
    sides = (
        (sizes[0], config.sigma_users, data.biases.user_count[batch.user]),
        (sizes[1], config.sigma_items, data.biases.item_count[batch.item]),
    )
    for size, sigma, count in sides:
        share = torch.from_numpy((config.sigma / sigma) ** 2 / np.maximum(count, 1)).to(size)
        total = total + (size * share).sum()
    return total


def _texts(network: RatingNetwork, reviews: Reviews, batch: Examples, device: torch.device) -> Tensor:
    """float32 [n, 2 * text]: what the CNN makes of the drawn reviews of user and item, each of them read once."""
    drawn = np.concatenate([batch.of_user, batch.of_item], axis=1)
    read = np.unique(drawn[drawn >= 0])
    n, r = batch.of_user.shape
    if not len(read):
        return torch.zeros(n, 2 * network.shape.text, device=device)
    values = network.reviews(torch.from_numpy(reviews.words[read].astype(np.int64)).to(device))
    place = torch.from_numpy(np.where(drawn >= 0, np.searchsorted(read, drawn), -1)).to(device)
    return torch.cat([of_reviews(values, place[:, :r]), of_reviews(values, place[:, r:])], dim=1)
