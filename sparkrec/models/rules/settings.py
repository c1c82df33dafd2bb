"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.settings.setting import COUNT, NOT_NEGATIVE, PAIR, SHARE, Bounds, setting


@dataclass(frozen=True)
class RulesConfig:
    """Association rules of baskets, by FP-Growth."""

    min_support: float = setting(
        0.002,
        "share of the baskets that hold all items of a rule",
        Bounds(0, 1, beyond=True),
        tried=(0.001, 0.002, 0.005),
    )
    min_confidence: float = setting(
        0.1, "share of the baskets with the antecedent that hold the consequent too", SHARE, tried=(0.01, 0.05, 0.1)
    )
    min_lift: float = setting(1.0, "confidence / the consequent's share of the baskets", NOT_NEGATIVE)
    max_basket_items: int = setting(100, "longer baskets keep their most frequent items", PAIR)
    max_itemset: int = setting(3, "items of a rule, both sides together", PAIR)
    miner: str = setting(
        "level_wise",
        "level_wise (sets up to max_itemset) | fp_growth (MLlib's, which walks longer ones too)",
        choices=["level_wise", "fp_growth"],
    )
    max_rules: int = setting(5_000_000, "a setting that would make more is refused, and says so", COUNT)
