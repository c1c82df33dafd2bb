"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.errors import UserError
from sparkrec.settings.setting import (
    COUNT,
    COUNT_OR_NONE,
    COUNTS,
    DROPPED,
    NOT_NEGATIVE,
    POSITIVE,
    SEED,
    STRENGTH,
    setting,
)


@dataclass(frozen=True)
class GruConfig:
    """Session-parallel GRU (GRU4Rec)."""

    cell: str = setting("gru", "plain: gru | lstm, by operations: no compiled step", choices=["gru", "lstm"])
    layers: List[int] = setting([100], "hidden units of each layer", COUNTS)
    embedding: str = setting(
        "constrained",
        "of the input: constrained (the output's own) | separate | none (one-hot)",
        choices=["constrained", "separate", "none"],
    )
    embedding_dim: int = setting(100, "separate: dimensions of the input embedding", COUNT)
    pretrained: str = setting(
        "none",
        "what the items' embeddings begin with: none (drawn) | prod2vec (the night's, of the same width)",
        choices=["none", "prod2vec"],
    )
    pretrained_tuned: bool = setting(
        True, "pretrained: the embeddings learn on; false: separate ones stay as prod2vec's are"
    )
    network: str = setting(
        "plain",
        "plain | parallel (features) | hierarchical-init | hierarchical-all (a user's earlier sessions)",
        choices=["plain", "parallel", "hierarchical-init", "hierarchical-all"],
    )
    features: List[str] = setting(
        [], "parallel: names of vectors in item_vectors, e.g. [text_tfidf]; a sub-network each"
    )
    feature_layers: List[int] = setting([100], "parallel: hidden units of each layer of these", COUNTS)
    schedule: str = setting(
        "simultaneous",
        "parallel: simultaneous | alternating | residual | interleaving training of the sub-networks",
        choices=["simultaneous", "alternating", "residual", "interleaving"],
    )
    bptt: int = setting(
        1, "plain: events of the session that a gradient goes back over; more take longer and remember more", COUNT
    )
    event_types: bool = setting(
        False,
        "plain: inputs have the type of their event, where sessions have several; by operations: no compiled step",
    )
    user_units: int = setting(100, "hierarchical: hidden units of the user-level GRU", COUNT)
    bloom_rows: int = setting(
        0, "rows that all items share (Bloom embeddings); 0: each item has its own", COUNT_OR_NONE
    )
    bloom_hashes: int = setting(4, "rows of each item then", COUNT)
    lanes: int = setting(80, "sessions walked in parallel, over all ranks together (mini-batch)", COUNT)
    loss: str = setting(
        "bpr-max",
        "cross-entropy | bpr | top1 | bpr-max | top1-max",
        choices=["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"],
    )
    logq: float = setting(1.0, "cross-entropy: weight of the log-popularity correction", NOT_NEGATIVE)
    bpreg: float = setting(1.95, "bpr-max: weight of the score regularisation", NOT_NEGATIVE)
    elu: float = setting(0.5, "bpr-max: alpha of the ELU on the scores; 0: linear", NOT_NEGATIVE)
    n_sample: int = setting(2048, "additional negatives of a step, beside the lanes' own targets", COUNT_OR_NONE)
    sample_alpha: float = setting(
        0.4, "they are drawn by popularity ** sample_alpha; 0: uniformly, 1: by popularity", STRENGTH
    )
    dropout_embedding: float = setting(
        0.3,
        "share that is dropped; 0 to 1; without an embedding, of the first layer's output",
        DROPPED,
        tried=(0.1, 0.3, 0.5),
    )
    dropout_hidden: float = setting(0.05, "share that is dropped; 0 to 1", DROPPED, tried=(0.05, 0.2))
    learning_rate: float = setting(0.05, "of Adagrad", POSITIVE, tried=(0.03, 0.05, 0.1))
    momentum: float = setting(0.4, "0: none", DROPPED)
    epochs: int = setting(5, "passes over the sessions", COUNT, effort=True)
    session_order: str = setting(
        "time",
        "time: by first event | random: drawn anew each epoch, within each snapshot file",
        choices=["time", "random"],
    )
    warm_start: bool = setting(False, "begin with the weights of the latest earlier night's model of the same settings")
    full_retrain_nights: int = setting(
        0, "warm_start: every so many nights train from scratch all the same; 0: for no number of nights", COUNT_OR_NONE
    )
    seed: int = setting(1, bounds=SEED)

    def check(self) -> None:
        """Refuses settings that do not go together."""
        turns = len(self.features) + 1
        in_turn = self.schedule in ("alternating", "residual")
        alone = self.network != "plain" or self.bloom_rows > 0
        pretrained = self.pretrained != "none"
        for wrong, what, where, fix in [
            (self.network == "parallel" and not self.features, "the parallel network needs features", "gru.features",
             "name vectors of the table item_vectors, e.g. [text_tfidf]"),
            (self.network != "parallel" and self.features, "only the parallel network has features",
             f"gru.network={self.network}, gru.features={self.features}", "set gru.network=parallel"),
            (self.warm_start and self.features, "vectors of texts differ from night to night",
             f"gru.warm_start=true, gru.features={self.features}", "set gru.warm_start=false"),
            (self.network == "parallel" and in_turn and self.epochs < turns, "fewer epochs than sub-networks",
             f"gru.epochs={self.epochs}, gru.schedule={self.schedule}", f"set gru.epochs={turns} or more"),
            (alone and self.embedding != "constrained", "only the plain network can do without constrained embedding",
             f"gru.embedding={self.embedding}, gru.network={self.network}, gru.bloom_rows={self.bloom_rows}",
             "set gru.embedding=constrained"),
            (self.bloom_rows > 0 and self.network != "plain", "only the plain network has Bloom embeddings",
             f"gru.network={self.network}, gru.bloom_rows={self.bloom_rows}", "set gru.bloom_rows=0"),
            (alone and self.bptt > 1, "only the plain network's gradients go back over several events",
             f"gru.bptt={self.bptt}, gru.network={self.network}, gru.bloom_rows={self.bloom_rows}", "set gru.bptt=1"),
            (self.event_types and alone, "only the plain network with an embedding of each item has types of events",
             f"gru.event_types=true, gru.network={self.network}, gru.bloom_rows={self.bloom_rows}",
             "set gru.event_types=false"),
            (self.cell == "lstm" and (self.network != "plain" or self.embedding == "none"),
             "only the plain network with an embedding has LSTM cells",
             f"gru.cell=lstm, gru.network={self.network}, gru.embedding={self.embedding}", "set gru.cell=gru"),
            (pretrained and (self.embedding == "none" or self.bloom_rows > 0),
             "there are no embeddings of single items that could begin with prod2vec's",
             f"gru.pretrained={self.pretrained}, gru.embedding={self.embedding}, gru.bloom_rows={self.bloom_rows}",
             "set gru.pretrained=none"),
            (pretrained and self.warm_start, "vectors of prod2vec differ from night to night",
             f"gru.pretrained={self.pretrained}, gru.warm_start=true", "set gru.warm_start=false"),
            (pretrained and not self.pretrained_tuned and self.embedding != "separate",
             "embeddings that the output shares have to learn",
             f"gru.pretrained_tuned=false, gru.embedding={self.embedding}", "set gru.embedding=separate"),
            (0 < self.bloom_rows < self.bloom_hashes, "more positions than rows",
             f"gru.bloom_rows={self.bloom_rows}, gru.bloom_hashes={self.bloom_hashes}", "raise gru.bloom_rows"),
        ]:  # fmt: skip
            if wrong:
                raise UserError(what, where=where, fix=fix)
