"""Predicted ratings of pairs, and of all candidates of a user, from the model's folder alone."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.models.two_tower.network import Feature
from sparkrec.storage import files

if TYPE_CHECKING:
    from torch import Tensor

_PAIRS_AT_ONCE = 65_536


class Served:
    """A model as loaded from its folder.

    Attributes:
        model: The description in ``model.json``.
        item_count: int64 [n_items], ratings of each item that it was trained on.
        user_count: int64 [n_users], likewise of the users.
    """

    def __init__(self, path: str) -> None:
        import torch

        from sparkrec.models.ratings.network import RatingNetwork, RatingShape
        from sparkrec.models.ratings.reviews import Largest
        from sparkrec.ranks.checkpoint import load_model

        weights, self.model = load_model(path)
        described = self.model["shape"]
        features = {k: tuple(Feature(**f) for f in described[k]) for k in ("user_features", "item_features")}
        listed = {k: tuple(described[k]) for k in ("hidden", "filter_widths")}
        self.shape = RatingShape(**{**described, **features, **listed})
        self.network = RatingNetwork(self.shape)
        prefix = "dense."
        self.network.load_state_dict({k[len(prefix) :]: w for k, w in weights.items() if k.startswith(prefix)})
        self.network.eval()
        self.weights = weights
        self.texts = [
            Largest(*(weights[f"{side}_text.{k}"].numpy() for k in Largest._fields)) if self.shape.vocabulary else None
            for side in ("user", "item")
        ]
        self.item_count: np.ndarray = weights["item_count"].numpy()
        self.user_count: np.ndarray = weights["user_count"].numpy()
        self._torch = torch

    def predict(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float32 [n], within the scale: the predicted ratings of pairs.

        A user or an item without a rating, or beyond the model's indexes, is seen as new. A pair that was rated is
        predicted without its own review.

        Args:
            user: int [n], ``user_idx``; -1 for one that the index does not have.
            item: int [n], ``item_idx``, likewise.
        """
        found = np.empty(len(user), dtype=np.float32)
        with self._torch.no_grad():
            for low in range(0, len(user), _PAIRS_AT_ONCE):
                part = slice(low, low + _PAIRS_AT_ONCE)
                found[part] = self._predict(np.asarray(user[part], np.int64), np.asarray(item[part], np.int64)).numpy()
        return found

    @property
    def uncertain(self) -> bool:
        """Whether it knows how sure it is: samples of a posterior."""
        return "samples" in self.weights

    def deviation(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        """float32 [n]: the standard deviations of the expected ratings, the noise of a single rating not counted.

        The samples' of s · p_u · q_i, and the biases' own: given the other side, b_u has the variance
        s² σ² / (n_u + λ_u) (a ridge's), that of its prior where n_u is 0; b_i likewise.

        Args:
            user: int [n], as of ``predict``.
            item: int [n], likewise.
        """
        found = np.empty(len(user), dtype=np.float32)
        with self._torch.no_grad():
            for low in range(0, len(user), _PAIRS_AT_ONCE):
                part = slice(low, low + _PAIRS_AT_ONCE)
                found[part] = self._deviation(np.asarray(user[part], np.int64), np.asarray(item[part], np.int64))
        return found

    def _deviation(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        of_user, of_item = self._rows(user, self.shape.n_users), self._rows(item, self.shape.n_items)
        scale, settings = self.model["scale"], self.model["config"]
        variance = scale**2 * self._products(of_user, of_item).var(0).numpy()
        if settings["biases"]:
            for side, rows, shrunk in zip(("user", "item"), (of_user, of_item), self.model["shrunk"], strict=True):
                count = self._taken(self.weights[f"{side}_count"], rows).numpy()
                variance = variance + (scale * settings["sigma"]) ** 2 / (count + shrunk)
        found: np.ndarray = np.sqrt(variance)
        return found

    def _products(self, of_user: Tensor, of_item: Tensor) -> Tensor:
        from sparkrec.models.ratings.posterior import sampled_products

        items = self._torch.where(of_item >= 0, of_item + self.shape.n_users, -1)
        return sampled_products(self.weights["samples"], of_user, items)

    def candidates(self, at_most: int, min_support: int) -> np.ndarray:
        """int64: the items with most ratings, of those with ``min_support`` or more, ascending."""
        enough = np.flatnonzero(self.item_count >= min_support)
        order = np.lexsort((enough, -self.item_count[enough]))
        return np.sort(enough[order[:at_most]])

    def _predict(self, user: np.ndarray, item: np.ndarray) -> Tensor:
        from sparkrec.models.ratings.loss import logit
        from sparkrec.models.ratings.network import Inputs, mean_rows, statistics_of

        torch, shape, weights = self._torch, self.shape, self.weights
        of_user, of_item = self._rows(user, shape.n_users), self._rows(item, shape.n_items)
        sides = {"user": of_user, "item": of_item}
        known = [
            self._taken(weights[f"{side}_{what}"], rows).float()
            for what in ("bias", "count")
            for side, rows in sides.items()
        ]
        table = weights["table"]
        users = self._taken(table, of_user)
        items = self._taken(table, torch.where(of_item >= 0, of_item + shape.n_users, -1))
        codes = torch.cat([self._codes("user", of_user), self._codes("item", of_item)], dim=1)
        features = mean_rows(table, codes, [f.width for f in shape.features])
        vectors = self._taken(weights["item_vectors"], of_item) if shape.item_vectors else None
        texts = self._texts(of_user.numpy(), of_item.numpy()) if shape.vocabulary else None
        statistics = statistics_of(known[0], known[1], known[2], known[3], self.model["scale"])
        found = (
            self._products(of_user, of_item).mean(0)
            if self.uncertain
            else self.network(Inputs(users, items, features, statistics, vectors, texts))
        )
        low, high = self.model["ends"]
        base = self.model["mean"] + (known[0] + known[1] if self.model["config"]["biases"] else 0 * known[0])
        if self.model["config"]["loss"] == "logistic":
            return low + (high - low) * torch.sigmoid(logit(base, low, high) + found)
        return (base + self.model["scale"] * found).clamp(low, high)

    def _rows(self, of: np.ndarray, n: int) -> Tensor:
        return self._torch.from_numpy(np.where((of >= 0) & (of < n), of, -1))

    def _taken(self, rows: Tensor, at: Tensor) -> Tensor:
        """The rows, 0 where ``at`` is -1."""
        there = (at >= 0).view(-1, *[1] * (rows.dim() - 1))
        return rows[at.clamp(min=0)] * there

    def _codes(self, side: str, of: Tensor) -> Tensor:
        codes = self.weights[f"{side}_codes"]
        return self._torch.where((of >= 0)[:, None], codes[of.clamp(min=0)], -1)

    def _texts(self, user: np.ndarray, item: np.ndarray) -> Tensor:
        parts = [
            found.without(np.maximum(owner, 0), other) * (owner >= 0)[:, None]
            for found, owner, other in zip(self.texts, (user, item), (item, user), strict=True)
            if found is not None
        ]
        return self._torch.from_numpy(np.concatenate(parts, axis=1).astype(np.float32))


def load_served(path: str) -> Served:
    """The model in a folder; one that this process has loaded already is not loaded again."""
    from sparkrec.ranks.checkpoint import MODEL, MODEL_HASH

    described: dict[str, Any] = files.read_json(files.join(path, MODEL))
    return _load(path, described[MODEL_HASH])


@lru_cache(maxsize=2)
def _load(path: str, _: str) -> Served:
    return Served(path)
