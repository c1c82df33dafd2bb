"""The models, a folder each: the one place that knows which there are."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points

from sparkrec.log import warn_event
from sparkrec.models import (
    als,
    content,
    content2vec,
    copurchase_counts,
    gru,
    hybrid,
    implicit_mf,
    neighbours,
    prod2vec,
    ratings,
    rules,
    session_hybrid,
    session_neighbours,
    two_tower,
)
from sparkrec.models.model import Lists, Model

GROUP = "sparkrec.models"  # of the entry points by which other packages bring models
OURS = (
    als.MODEL,
    gru.MODEL,
    two_tower.MODEL,
    *prod2vec.MODELS,
    content2vec.MODEL,
    copurchase_counts.MODEL,
    rules.MODEL,
    *neighbours.MODELS,
    session_neighbours.MODEL,
    content.MODEL,
    implicit_mf.MODEL,
    ratings.MODEL,
    session_hybrid.MODEL,
    hybrid.MODEL,
)
SHIPPED = (als.MODEL.name, gru.MODEL.name, two_tower.MODEL.name)  # what a night trains unless it is told otherwise


def _from_outside() -> Iterator[Model]:
    """The models that other packages bring; what cannot be loaded, or has another's name, is said and left out."""
    taken = {model.name for model in OURS}
    for point in entry_points(group=GROUP):
        try:
            model = point.load()
        except Exception as error:  # whatever another package raises
            warn_event("model left out", entry_point=point.value, reason=f"{type(error).__name__}: {error}")
            continue
        if not isinstance(model, Model) or not model.name.isidentifier() or model.name in taken:
            reason = "no sparkrec.models.model.Model with a name of its own"
            warn_event("model left out", entry_point=point.value, reason=reason)
            continue
        taken.add(model.name)
        yield model


# A night trains them in this order; hybrids learn from the others' candidates.
MODELS: dict[str, Model] = {
    model.name: model for model in sorted((*OURS, *_from_outside()), key=lambda model: model.blends)
}


def models_for(lists: Lists) -> list[str]:
    """The models whose lists are for these, in order."""
    return [name for name, model in MODELS.items() if model.lists is lists]


def beside(what: str) -> list[str]:
    """The models that have ``items`` or ``users`` beside each other as tables of their own, in order."""
    listed = models_for(Lists.ITEMS) if what == "items" else []
    return [name for name, model in MODELS.items() if what in model.beside or name in listed]
