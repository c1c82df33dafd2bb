"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.settings.setting import COUNT, DROPPED, NOT_NEGATIVE, POSITIVE, SEED, WIDTHS, Bounds, setting


@dataclass(frozen=True)
class HybridConfig:
    """A blender that ranks the union of the other models' candidates."""

    models: List[str] = setting(
        [], "whose candidates are blended; []: of all models of the night that can rank items for users"
    )
    blender: str = setting(
        "logistic",
        "logistic | trees (gradient-boosted), both of MLlib | network (layers over the models' embeddings, joined)",
        choices=["trees", "logistic", "network"],
    )
    candidates: int = setting(300, "of each model", COUNT)
    context: bool = setting(
        False, "true: besides the ranks in the models' lists, items' popularity and age, and users' activity"
    )
    trees: int = setting(50, "trees: their number", COUNT)
    depth: int = setting(5, "trees: levels of each", Bounds(1, 30))
    step: float = setting(0.1, "trees: learning rate", Bounds(0, 1, beyond=True))
    reg: float = setting(0.00001, "logistic: regularisation", NOT_NEGATIVE)
    vectors: List[str] = setting(
        [], "network: models whose vectors of user and item it reads; []: of all blended ones that have such"
    )
    hidden: List[int] = setting([64], "network: widths of the hidden layers; []: none", WIDTHS)
    dropout: float = setting(0.2, "network: share of the inputs that is dropped", DROPPED)
    epochs: int = setting(10, "network: passes over the candidates", COUNT)
    batch_size: int = setting(256, "network: candidates of a step, over all ranks together", COUNT)
    learning_rate: float = setting(0.03, "network: of Adagrad; falls in a line to 0", POSITIVE)
    seed: int = setting(1, bounds=SEED)
