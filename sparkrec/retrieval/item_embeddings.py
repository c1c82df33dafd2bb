"""The item vectors that prod2vec, Meta-prod2vec and content2vec are served by."""

from __future__ import annotations

from sparkrec.errors import InvariantError
from sparkrec.retrieval.block_search import ItemMatrix
from sparkrec.training.checkpoint import load_model

VECTORS = "vectors"


def stored_vectors(path: str) -> ItemMatrix:
    """The vectors of a stored model, for ``similar.nearest``; an item without one is not eligible.

    Args:
        path: The model's folder: of ``training.prod2vec``, ``training.content2vec`` or ``models.prod2vec_mllib``.

    Raises:
        UserError: There is no such model, or its files are damaged.
        InvariantError: It is a model of another kind.
    """
    weights, model = load_model(path)
    if VECTORS not in weights or len(weights[VECTORS]) != model.get("n_items"):
        raise InvariantError(f"{path} holds no vectors of items")
    vectors = weights[VECTORS].numpy()
    return ItemMatrix(vectors, None, (vectors != 0).any(axis=1))
