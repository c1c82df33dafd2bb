"""The bounds of every setting that is a number; of a list's values each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from sparkrec.errors import UserError


@dataclass(frozen=True)
class Bounds:
    """What a number may be. Null passes where the setting may be null; NaN and infinity never do.

    Attributes:
        low: The smallest value.
        high: The largest.
        beyond: Whether the smallest itself is too small.
        short_of: Whether the largest itself is too large.
        least: Of a list: how many values it must have.
    """

    low: float
    high: float = math.inf
    beyond: bool = False
    short_of: bool = False
    least: int = 0

    def holds(self, value: float) -> bool:
        """Whether a number is within them."""
        above = value > self.low if self.beyond else value >= self.low
        below = value < self.high if self.short_of else value <= self.high
        return above and below and math.isfinite(value)

    @property
    def said(self) -> str:
        """In words."""
        low = f"more than {self.low:g}" if self.beyond else f"at least {self.low:g}"
        if math.isinf(self.high):
            return low
        if not self.beyond and not self.short_of:
            return f"from {self.low:g} to {self.high:g}"
        return f"{low} and {'less than' if self.short_of else 'at most'} {self.high:g}"


def setting(default: Any, bounds: Bounds | None = None, choices: Sequence[str] = ()) -> Any:
    """A field of a model's section in the configuration, with what it may be.

    Args:
        default: Its default; a list is copied.
        bounds: Of a number, or of each of a list's.
        choices: Of a text.
    """
    may_be = {"bounds": bounds, "choices": tuple(choices)}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=may_be)
    return field(default=default, metadata=may_be)


COUNT, COUNT_OR_NONE, PAIR = Bounds(1), Bounds(0), Bounds(2)  # of things; of things or none at all; two or more
POSITIVE, NOT_NEGATIVE = Bounds(0, beyond=True), Bounds(0)  # of a continuous size
SHARE, INNER_SHARE = Bounds(0, 1), Bounds(0, 1, beyond=True, short_of=True)
DROPPED = Bounds(0, 1, short_of=True)  # a share that leaves something
STRENGTH = Bounds(-10, 10)  # an exponent or a factor of a logarithm; a negative one turns it round
MARGIN = Bounds(-100, 1)  # a share below something; negative: above it
SEED = Bounds(0, 2**31 - 1)
COUNTS, WIDTHS = Bounds(1, least=1), Bounds(1)  # lists: one value or more; also none

BOUNDS: dict[str, Bounds] = {
    "warehouse.lock_expiry_s": Bounds(10, 86_400),
    "ingest.max_quarantine_share": SHARE,
    "ingest.max_quantity": POSITIVE,
    "prepare.sessions.gap_minutes": POSITIVE,
    "prepare.sessions.min_length": COUNT,
    "prepare.sessions.max_length": PAIR,
    "prepare.baskets.window_hours": POSITIVE,
    "prepare.baskets.min_items": COUNT,
    "prepare.baskets.max_items": COUNT,
    "prepare.user_item.half_life_days": POSITIVE,
    "prepare.support.min_item_events": COUNT_OR_NONE,
    "prepare.support.min_user_events": COUNT_OR_NONE,
    "prepare.text.dim": COUNT,
    "prepare.text.min_df": COUNT,
    "prepare.text.vocabulary": COUNT,
    "prepare.text.seed": SEED,
    "als.rank": COUNT,
    "als.iterations": COUNT,
    "als.reg": NOT_NEGATIVE,
    "als.alpha": NOT_NEGATIVE,
    "als.debias": SHARE,
    "als.user_blocks": COUNT_OR_NONE,
    "als.item_blocks": COUNT_OR_NONE,
    "als.checkpoint_interval": COUNT,
    "als.seed": SEED,
    "gru.layers": COUNTS,
    "gru.embedding_dim": COUNT,
    "gru.feature_layers": COUNTS,
    "gru.bptt": COUNT,
    "gru.user_units": COUNT,
    "gru.bloom_rows": COUNT_OR_NONE,
    "gru.bloom_hashes": COUNT,
    "gru.lanes": COUNT,
    "gru.logq": NOT_NEGATIVE,
    "gru.bpreg": NOT_NEGATIVE,
    "gru.elu": NOT_NEGATIVE,
    "gru.n_sample": COUNT_OR_NONE,
    "gru.sample_alpha": STRENGTH,
    "gru.dropout_embedding": DROPPED,
    "gru.dropout_hidden": DROPPED,
    "gru.learning_rate": POSITIVE,
    "gru.momentum": DROPPED,
    "gru.epochs": COUNT,
    "gru.full_retrain_nights": COUNT_OR_NONE,
    "gru.seed": SEED,
    "two_tower.dim": COUNT,
    "two_tower.hidden": WIDTHS,
    "two_tower.history_length": COUNT,
    "two_tower.batch_size": COUNT,
    "two_tower.epochs": COUNT,
    "two_tower.learning_rate": POSITIVE,
    "two_tower.temperature": POSITIVE,
    "two_tower.dropout": DROPPED,
    "two_tower.logq": NOT_NEGATIVE,
    "two_tower.n_sample": COUNT_OR_NONE,
    "two_tower.windows_days": POSITIVE,
    "two_tower.horizon_days": NOT_NEGATIVE,
    "two_tower.half_life_days": POSITIVE,
    "two_tower.debias": SHARE,
    "two_tower.second_weight": NOT_NEGATIVE,
    "two_tower.full_retrain_nights": COUNT_OR_NONE,
    "two_tower.seed": SEED,
    **{
        f"{model}.{key}": bounds
        for model in ("prod2vec", "meta_prod2vec")
        for key, bounds in {
            "dim": COUNT,
            "window": COUNT,
            "negatives": COUNT,
            "ns_exponent": STRENGTH,
            "subsample": SHARE,
            "epochs": COUNT,
            "learning_rate": POSITIVE,
            "min_learning_rate": NOT_NEGATIVE,
            "batch_size": COUNT,
            "seed": SEED,
        }.items()
    },
    "meta_prod2vec.side_weight": NOT_NEGATIVE,
    "content2vec.dim": COUNT,
    "content2vec.hidden": WIDTHS,
    "content2vec.window": COUNT,
    "content2vec.negatives": COUNT,
    "content2vec.epochs": COUNT,
    "content2vec.learning_rate": POSITIVE,
    "content2vec.batch_size": COUNT,
    "content2vec.seed": SEED,
    "rules.min_support": Bounds(0, 1, beyond=True),
    "rules.min_confidence": SHARE,
    "rules.min_lift": NOT_NEGATIVE,
    "rules.max_basket_items": PAIR,
    "rules.max_itemset": PAIR,
    "rules.max_rules": COUNT,
    **{
        f"{model}.{key}": bounds
        for model in ("item_neighbours", "user_neighbours")
        for key, bounds in {
            "neighbours": COUNT,
            "shrinkage": NOT_NEGATIVE,
            "bm25_k1": NOT_NEGATIVE,
            "bm25_b": SHARE,
            "fit_half_life_days": POSITIVE,
            "half_life_days": POSITIVE,
        }.items()
    },
    "session_neighbours.neighbours": COUNT,
    "session_neighbours.sample": COUNT_OR_NONE,
    "session_neighbours.last_items": COUNT,
    "session_neighbours.idf": NOT_NEGATIVE,
    "session_neighbours.own_items": NOT_NEGATIVE,
    "session_neighbours.same_user": NOT_NEGATIVE,
    "session_hybrid.votes_weight": NOT_NEGATIVE,
    "session_hybrid.power": NOT_NEGATIVE,
    "session_hybrid.own_items": NOT_NEGATIVE,
    "content.half_life_days": POSITIVE,
    "hybrid.candidates": COUNT,
    "hybrid.trees": COUNT,
    "hybrid.depth": Bounds(1, 30),  # MLlib's deepest
    "hybrid.step": Bounds(0, 1, beyond=True),
    "hybrid.reg": NOT_NEGATIVE,
    "hybrid.seed": SEED,
    "user_groups.groups": Bounds(2, least=1),
    "user_groups.sample": PAIR,
    "user_groups.seed": SEED,
    "train.ranks": COUNT,
    "train.start_timeout_s": COUNT,
    "train.gloo_timeout_s": COUNT,
    "train.threads_per_rank": COUNT_OR_NONE,
    "train.snapshot_files": COUNT,
    "evaluation.holdout_quantile": INNER_SHARE,
    "evaluation.holdout_days": POSITIVE,
    "evaluation.k": COUNTS,
    "evaluation.recent_days": POSITIVE,
    "evaluation.cold_below": COUNT_OR_NONE,
    "evaluation.min_users": COUNT,
    "evaluation.min_pairs": COUNT,
    "gate.k": COUNT,
    "gate.below_popularity": MARGIN,
    "gate.below_last": MARGIN,
    "gate.min_users_share": SHARE,
    "gate.patience": COUNT_OR_NONE,
    "prior.days": POSITIVE,
    "prior.als": STRENGTH,
    "prior.als_added": NOT_NEGATIVE,
    "prior.two_tower": NOT_NEGATIVE,
    "prior.item_neighbours": STRENGTH,
    "topk.k": COUNT,
    "topk.min_recall": SHARE,
    "topk.hnsw_neighbours": PAIR,
    "topk.hnsw_search": COUNT,
    "topk.ivf_cells": COUNT_OR_NONE,
    "topk.ivf_probes": COUNT,
    "topk.block_mb": COUNT,
    "topk.lsh_tables": COUNT,
    "topk.lsh_hashes": COUNT,
    "topk.pass_mb": COUNT,
    "report.nights": COUNT,
    "report.users": COUNT_OR_NONE,
    "maintenance.compact_files": COUNT_OR_NONE,
    "maintenance.file_mb": COUNT,
    "maintenance.retention_hours": NOT_NEGATIVE,
    "maintenance.margin_hours": NOT_NEGATIVE,
    "maintenance.log_retention_days": COUNT,
    "maintenance.keep_nights": COUNT_OR_NONE,
    "maintenance.keep_list_nights": COUNT_OR_NONE,
}


def check_declared(section: str, settings: Any) -> None:
    """Refuses settings of a model from outside that are not what their fields (``setting``) allow.

    Raises:
        UserError: One is not.
    """
    for one in fields(settings):
        value, dotted = getattr(settings, one.name), f"{section}.{one.name}"
        bounds, choices = one.metadata.get("bounds"), one.metadata.get("choices")
        if bounds is not None:
            check_bounds(dotted, value, bounds)
        if choices and value not in choices:
            raise UserError("wrong configuration value", where=f"{dotted}={value}", fix=f"one of {', '.join(choices)}")


def check_bounds(dotted: str, value: float | list[float] | None, bounds: Bounds) -> None:
    """Refuses a setting outside of its bounds.

    Raises:
        UserError: It, or one of a list's values, is; or the list is too short.
    """
    values = value if isinstance(value, list) else [] if value is None else [value]
    wrong = [one for one in values if not bounds.holds(one)]
    few = isinstance(value, list) and len(value) < bounds.least
    if wrong or few:
        fix = f"{bounds.said}{', each' if isinstance(value, list) else ''}{', one or more' if few else ''}"
        raise UserError("wrong configuration value", where=f"{dotted}={value}", fix=fix)
