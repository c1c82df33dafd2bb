"""The models, a folder each: the one place that knows which there are."""

from __future__ import annotations

from sparkrec.models import (
    als,
    content,
    content2vec,
    gru,
    hybrid,
    neighbours,
    prod2vec,
    rules,
    session_hybrid,
    session_neighbours,
    two_tower,
)
from sparkrec.models.model import Lists, Model

MODELS: dict[str, Model] = {
    model.name: model
    for model in (
        als.MODEL,
        gru.MODEL,
        two_tower.MODEL,
        *prod2vec.MODELS,
        content2vec.MODEL,
        rules.MODEL,
        *neighbours.MODELS,
        session_neighbours.MODEL,
        content.MODEL,
        session_hybrid.MODEL,
        hybrid.MODEL,
    )
}  # a night trains them in this order


def models_for(lists: Lists) -> list[str]:
    """The models whose lists are for these, in order."""
    return [name for name, model in MODELS.items() if model.lists is lists]


def beside(what: str) -> list[str]:
    """The models that have ``items`` or ``users`` beside each other as tables of their own, in order."""
    listed = models_for(Lists.ITEMS) if what == "items" else []
    return [name for name, model in MODELS.items() if what in model.beside or name in listed]
