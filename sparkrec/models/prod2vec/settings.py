"""Settings of the models, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.errors import UserError
from sparkrec.settings.setting import COUNT, NOT_NEGATIVE, POSITIVE, SEED, SHARE, STRENGTH, setting


@dataclass(frozen=True)
class Prod2VecConfig:
    """prod2vec: skip-gram with negative sampling over baskets or sessions."""

    sequences: str = setting(
        "copurchase", "what it learns from: copurchase (baskets) | sessions", choices=["copurchase", "sessions"]
    )
    trainer: str = setting(
        "workers",
        "workers (PyTorch on the ranks) | mllib (Spark's Word2Vec, with its hierarchical softmax)",
        choices=["workers", "mllib"],
    )
    lists: str = setting(
        "bought_together",
        "bought_together (an item's partners) | similar (items whose partners are alike)",
        choices=["similar", "bought_together"],
    )
    dim: int = setting(100, "dimensions of the vectors", COUNT)
    window: int = setting(10, "items on either side that are the context, at most", COUNT, tried=(3, 10))
    negatives: int = setting(5, "negative samples of a positive pair", COUNT)
    ns_exponent: float = setting(
        0.0,
        "they are drawn by count ** ns_exponent; near 0 for bought_together, 0.75 for similar",
        STRENGTH,
        tried=(0.0, 0.5, 0.75),
    )
    subsample: float = setting(1e-3, "items with more than this share of the events are sampled down; 0: none", SHARE)
    epochs: int = setting(10, "passes over the sequences", COUNT, effort=True)
    learning_rate: float = setting(0.2, "of row-wise Adagrad; falls in a line to", POSITIVE)
    min_learning_rate: float = setting(1e-4, "this", NOT_NEGATIVE)
    batch_size: int = setting(
        8192, "positive pairs of a step at most, over all ranks together; fewer where there are few", COUNT
    )
    seed: int = setting(1, bounds=SEED)

    def check(self) -> None:
        """Refuses settings that do not go together."""
        if self.lists == "bought_together" and self.trainer == "mllib":
            raise UserError(
                "Spark's Word2Vec keeps no context vectors, which lists of bought_together are searched by",
                where="prod2vec.lists=bought_together, prod2vec.trainer=mllib",
                fix="set prod2vec.lists=similar, or prod2vec.trainer=workers",
            )


@dataclass(frozen=True)
class MetaProd2VecConfig(Prod2VecConfig):
    """Meta-prod2vec: side information joins the context."""

    trainer: str = setting("workers", "workers", choices=["workers"])
    lists: str = setting("similar", "similar", choices=["similar"])
    window: int = setting(3, "items on either side that are the context, at most", COUNT)
    ns_exponent: float = setting(
        0.75, "they are drawn by count ** ns_exponent; below 0: rare items more often", STRENGTH
    )
    side: List[str] = setting([], "features of the items that join input and context; []: all that the format declares")
    side_weight: float = setting(1.0, "of the pairs with side information in the loss", NOT_NEGATIVE)
