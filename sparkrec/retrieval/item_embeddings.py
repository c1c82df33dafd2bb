"""The item vectors that prod2vec, Meta-prod2vec and content2vec are served by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sparkrec.errors import InvariantError
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.training.checkpoint import load_model

if TYPE_CHECKING:
    import torch

VECTORS = "vectors"
CONTEXTS = "contexts"


def stored_vectors(path: str) -> ItemMatrix:
    """The vectors of a stored model, for ``similar.nearest``; an item without one is not eligible.

    Args:
        path: The model's folder: of ``training.prod2vec``, ``training.content2vec`` or ``models.prod2vec_mllib``.

    Raises:
        UserError: There is no such model, or its files are damaged.
        InvariantError: It is a model of another kind.
    """
    return _matrix(path, *load_model(path), VECTORS)


def stored_contexts(path: str) -> ItemMatrix | None:
    """The context vectors of a stored prod2vec whose lists are ``bought_together``: what its vectors are held against.

    Skip-gram with K negatives by q draws x_i · c_j to log P(j | i) / q(j) − log K (Levy and Goldberg 2014, "Neural
    word embedding as implicit matrix factorization", eq. 7), so the inner product orders what is bought with an item,
    by its probability where ``ns_exponent`` is 0; the cosine of two input vectors says whose partners are alike.

    Args:
        path: See ``stored_vectors``.

    Returns:
        The candidates of ``similar.nearest``; None for a model whose lists are of similar items.

    Raises:
        UserError: There is no such model, or its files are damaged.
        InvariantError: The model should have contexts, and has none.
    """
    weights, model = load_model(path)
    if model.get("config", {}).get("lists") != "bought_together":
        return None
    return _matrix(path, weights, model, CONTEXTS)


def _matrix(path: str, weights: dict[str, torch.Tensor], model: dict[str, Any], name: str) -> ItemMatrix:
    if name not in weights or len(weights[name]) != model.get("n_items"):
        raise InvariantError(f"{path} holds no {name} of items")
    vectors = weights[name].numpy()
    return ItemMatrix(vectors, None, (vectors != 0).any(axis=1))
