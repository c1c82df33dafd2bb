"""The item vectors that prod2vec, Meta-prod2vec and content2vec are served by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sparkrec.errors import InvariantError
from sparkrec.ranks.checkpoint import MODEL_HASH, load_model
from sparkrec.retrieval.block_search import ItemMatrix

if TYPE_CHECKING:
    import torch

VECTORS = "vectors"
CONTEXTS = "contexts"


class ItemEmbeddings(NamedTuple):
    """A stored model's items, for ``similar.nearest``; an item whose vector is 0 has none, and is not eligible.

    Attributes:
        vectors: What lists are asked for with.
        contexts: What they are held against where the model's lists are ``bought_together``; None where its lists are
            of similar items. Skip-gram with K negatives by q draws x_i · c_j to log P(j | i) / q(j) − log K (Levy and
            Goldberg 2014, "Neural word embedding as implicit matrix factorization", eq. 7), so the inner product orders
            what is bought with an item, by its probability where ``ns_exponent`` is 0; the cosine of two input vectors
            says whose partners are alike.
    """

    vectors: ItemMatrix
    contexts: ItemMatrix | None


def stored_embeddings(path: str) -> ItemEmbeddings:
    """The vectors of a stored model, and its contexts where its lists need them.

    Args:
        path: The model's folder: of ``prod2vec.train``, ``content2vec.train`` or ``prod2vec.mllib``.

    Raises:
        UserError: There is no such model, or its files are damaged.
        InvariantError: It is a model of another kind, or should have contexts and has none.
    """
    weights, model = load_model(path)
    together = model.get("config", {}).get("lists") == "bought_together"
    contexts = _matrix(path, weights, model, CONTEXTS) if together else None
    return ItemEmbeddings(_matrix(path, weights, model, VECTORS), contexts)


def unit_vectors(path: str, n_items: int) -> tuple[torch.Tensor, str]:
    """The vectors of a stored model at length 1, float32 [n_items, dim], 0 for an item without one; its weights' hash.

    Args:
        path: The model's folder.
        n_items: Size of the catalogue.

    Raises:
        UserError: There is no such model, or its files are damaged.
        InvariantError: It has no vectors, or those of other items.
    """
    import torch

    weights, model = load_model(path)
    if VECTORS not in weights or len(weights[VECTORS]) != n_items:
        raise InvariantError(f"{path} holds no vectors of {n_items} items")
    return torch.nn.functional.normalize(weights[VECTORS]), str(model[MODEL_HASH])


def _matrix(path: str, weights: dict[str, torch.Tensor], model: dict[str, Any], name: str) -> ItemMatrix:
    if name not in weights or len(weights[name]) != model.get("n_items"):
        raise InvariantError(f"{path} holds no {name} of items")
    vectors = weights[name].numpy()
    return ItemMatrix(vectors, None, (vectors != 0).any(axis=1))
