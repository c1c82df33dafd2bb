"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from sparkrec.settings.setting import COUNT, NOT_NEGATIVE, POSITIVE, SEED, STRENGTH, setting


@dataclass(frozen=True)
class ImplicitMfConfig:
    """Matrix factorisation over implicit feedback, by ranking."""

    loss: str = setting(
        "bpr",
        "bpr | hinge | pointwise (logistic) | warp: of what a user took against items that are drawn",
        choices=["bpr", "hinge", "pointwise", "warp"],
        tried=("bpr", "warp"),
    )
    dim: int = setting(64, "dimensions of the factors", COUNT, tried=(32, 64, 128))
    bias: bool = setting(True, "items have a bias")
    negatives: str = setting(
        "uniform",
        "uniform | popularity: how items are drawn that the user did not take",
        choices=["uniform", "popularity"],
        tried=("uniform", "popularity"),
    )
    ns_exponent: float = setting(1.0, "popularity: they are drawn by count ** ns_exponent", STRENGTH)
    n_negatives: int = setting(1, "bpr, hinge, pointwise: items drawn for each pair", COUNT)
    tries: int = setting(10, "warp: items drawn for a pair, at most, until one is scored too high", COUNT)
    margin: float = setting(1.0, "hinge, warp: by which a taken item is to be scored above another", POSITIVE)
    reg: float = setting(
        0.1, "lambda, of the factors and the bias of each pair", NOT_NEGATIVE, tried=(0.003, 0.01, 0.03, 0.1, 0.2)
    )
    epochs: int = setting(20, "passes over the pairs", COUNT, effort=True)
    batch_size: int = setting(1024, "pairs of a step, over all ranks together", COUNT)
    learning_rate: float = setting(0.02, "of Adagrad", POSITIVE, tried=(0.02, 0.05, 0.1))
    half_life_days: Optional[float] = setting(
        None,
        "days in which the weight of an event in its pair's halves; null: all pairs weigh the same",
        POSITIVE,
        tried=(None, 30.0, 90.0),
    )
    seed: int = setting(1, bounds=SEED)
