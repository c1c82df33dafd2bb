"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List, Optional

from sparkrec.settings.setting import (
    COUNT,
    COUNT_OR_NONE,
    DROPPED,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    SHARE,
    WIDTHS,
    setting,
)


@dataclass(frozen=True)
class TwoTowerConfig:
    """Two-tower retrieval."""

    dim: int = setting(64, "dimensions of the towers' vectors", COUNT)
    hidden: List[int] = setting([], "widths of the hidden layers of each tower; []: none", WIDTHS)
    history_length: int = setting(20, "a user's last items that the user tower sees", COUNT)
    history_pooling: str = setting(
        "mean",
        "mean (by age) | attention (by age and by what else is known of the user)",
        choices=["mean", "attention"],
    )
    batch_size: int = setting(1024, "examples of a step, over all ranks together", COUNT)
    epochs: int = setting(5, "passes over the examples", COUNT, tried=(3, 5, 10), effort=True)
    learning_rate: float = setting(0.03, "of Adagrad", POSITIVE, tried=(0.03, 0.1))
    temperature: float = setting(0.2, "divides the dot product of the towers", POSITIVE, tried=(0.1, 0.2, 0.3))
    normalize: bool = setting(True, "vectors of length 1")
    dropout: float = setting(0.0, "share that is dropped; 0 to 1", DROPPED)
    logq: float = setting(1.0, "weight of the log Q correction", NOT_NEGATIVE)
    n_sample: int = setting(
        1000, "additional uniform negatives of a step; from the number of items on: all items, exactly", COUNT_OR_NONE
    )
    gather_negatives: bool = setting(
        True, "the items of all ranks' examples are negatives; false: those of the own rank alone"
    )
    windows_days: List[float] = setting([1.0, 7.0, 30.0, 365.0], "days; windows of the items' momentum", POSITIVE)
    horizon_days: float = setting(
        1.0, "days a list is used: examples are looked at up to this long before their event", NOT_NEGATIVE
    )
    half_life_days: Optional[float] = setting(
        None, "days in which the weight of an example halves; null: never", POSITIVE, tried=(None, 90.0)
    )
    repeats: bool = setting(True, "every event is an example; false: a user's first one with an item")
    debias: float = setting(
        0.0,
        "an example weighs the item's popularity ** -debias: 0: popular items lead, 1: all items weigh the same",
        SHARE,
    )
    second_head: str = setting(
        "none",
        "none | rating (the event's value) | event_type: what the towers learn beside the next item",
        choices=["none", "rating", "event_type"],
    )
    second_weight: float = setting(0.1, "of its loss", NOT_NEGATIVE)
    warm_start: bool = setting(False, "begin with the weights of the latest earlier night's model of the same settings")
    full_retrain_nights: int = setting(
        0, "warm_start: every so many nights train from scratch all the same; 0: for no number of nights", COUNT_OR_NONE
    )
    seed: int = setting(1, bounds=SEED)
