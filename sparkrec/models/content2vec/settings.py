"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.settings.setting import COUNT, POSITIVE, SEED, WIDTHS, setting


@dataclass(frozen=True)
class Content2VecConfig:
    """content2vec: the items' content combined with prod2vec, trained on pairs bought together."""

    vectors: List[str] = setting([], "names of vectors in item_vectors, e.g. [text_tfidf]; []: all there are")
    combine: str = setting(
        "residual",
        "of prod2vec and content: residual (a pairwise unit) | concatenation",
        choices=["residual", "concatenation"],
    )
    dim: int = setting(100, "dimensions of the content's embedding", COUNT)
    hidden: List[int] = setting([128], "widths of the residual unit's hidden layers", WIDTHS)
    window: int = setting(3, "pairs bought together are so many items apart, at most", COUNT, tried=(3, 10))
    negatives: int = setting(5, "negative samples of a positive pair", COUNT)
    epochs: int = setting(5, "passes over the pairs", COUNT, effort=True)
    learning_rate: float = setting(0.01, "of Adagrad", POSITIVE, tried=(0.003, 0.01, 0.03))
    batch_size: int = setting(4096, "positive pairs of a step, over all ranks together", COUNT)
    seed: int = setting(1, bounds=SEED)
