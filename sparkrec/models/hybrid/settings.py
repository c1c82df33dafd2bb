"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.settings.setting import COUNT, NOT_NEGATIVE, SEED, Bounds, setting


@dataclass(frozen=True)
class HybridConfig:
    """A blender that ranks the union of the other models' candidates."""

    models: List[str] = setting(
        [], "whose candidates are blended; []: of all models of the night that can rank items for users"
    )
    blender: str = setting(
        "logistic", "logistic | trees (gradient-boosted); both of MLlib", choices=["trees", "logistic"]
    )
    candidates: int = setting(300, "of each model", COUNT)
    context: bool = setting(
        False, "true: besides the ranks in the models' lists, items' popularity and age, and users' activity"
    )
    trees: int = setting(50, "trees: their number", COUNT)
    depth: int = setting(5, "trees: levels of each", Bounds(1, 30))
    step: float = setting(0.1, "trees: learning rate", Bounds(0, 1, beyond=True))
    reg: float = setting(0.00001, "logistic: regularisation", NOT_NEGATIVE)
    seed: int = setting(1, bounds=SEED)
