"""The training stages of what goes with a product: prod2vec and its family, association rules."""

from __future__ import annotations

from typing import Any

from sparkrec.models.rules import mine_rules, save_rules
from sparkrec.pipeline.ledger import StageResult
from sparkrec.pipeline.night import Inputs, Night
from sparkrec.pipeline.parts import Part, baskets_of, model_cutoff, train_parts


def run_train_rules(night: Night, inputs: Inputs) -> StageResult:
    """Association rules of the baskets."""

    def train(part: Part, path: str, meta: dict[str, Any]) -> str:
        mined = mine_rules(baskets_of(night, inputs, part), night.config.rules, miner=night.config.rules.miner)
        save_rules(mined, path, {**meta, **mined.meta})
        left_out = ", ".join(f"{name} {value}" for name, value in mined.meta.items())
        return f"{mined.rules.count()} rules ({left_out})"

    return train_parts(night, inputs, "rules", night.config.rules, model_cutoff(night, inputs, "rules"), train)
