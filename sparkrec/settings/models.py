"""Settings of the models: a frozen dataclass each. ``sparkrec.settings.config`` puts them together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import List, Optional


@dataclass(frozen=True)
class AlsConfig:
    """MLlib ALS-WR."""

    feedback: str = "implicit"  # implicit (confidence) | explicit (rating)
    rank: int = 64
    iterations: int = 10
    reg: float = 0.1
    alpha: float = 1.0  # implicit: confidence = 1 + alpha * weight
    nonnegative: bool = False
    debias: float = 0.0  # implicit: the confidence is multiplied by the item's popularity ** -debias; 0 to 1
    user_blocks: int = 10  # 0: two for each task slot
    item_blocks: int = 10
    checkpoint_interval: int = 5
    seed: int = 1


@dataclass(frozen=True)
class GruConfig:
    """Session-parallel GRU (GRU4Rec)."""

    layers: List[int] = field(default_factory=lambda: [100])
    embedding: str = "constrained"  # constrained | separate | none
    embedding_dim: int = 100  # separate: dimensions of the input embedding
    network: str = "plain"  # plain | parallel | hierarchical-init | hierarchical-all
    features: List[str] = field(default_factory=list)  # parallel: names of item_vectors, a sub-network each
    feature_layers: List[int] = field(default_factory=lambda: [100])  # parallel: hidden units of these
    schedule: str = "simultaneous"  # parallel: simultaneous | alternating | residual | interleaving
    bptt: int = 1  # plain: events that a gradient goes back over, in the lane's session
    user_units: int = 100  # hierarchical: hidden units of the user-level GRU
    bloom_rows: int = 0  # rows that all items share (Bloom embeddings); 0: each item has its own
    bloom_hashes: int = 4  # rows of each item then
    lanes: int = 80  # sessions walked in parallel, over all ranks together
    loss: str = "bpr-max"  # cross-entropy | bpr | top1 | bpr-max | top1-max
    logq: float = 1.0  # cross-entropy: weight of the log-popularity correction
    bpreg: float = 1.95  # bpr-max: weight of the score regularisation
    elu: float = 0.5  # bpr-max: alpha of the ELU on the scores; 0: linear
    n_sample: int = 2048  # additional negatives a step
    sample_alpha: float = 0.4  # they are drawn by popularity ** sample_alpha
    dropout_embedding: float = 0.3  # share that is dropped
    dropout_hidden: float = 0.05
    learning_rate: float = 0.05
    momentum: float = 0.4
    epochs: int = 5
    session_order: str = "time"  # time | random
    warm_start: bool = False  # begin with the weights of the latest earlier night's model of the same settings
    full_retrain_nights: int = 0  # warm_start: every so many nights train from scratch; 0: never for their number
    seed: int = 1


@dataclass(frozen=True)
class TwoTowerConfig:
    """Two-tower retrieval."""

    dim: int = 64
    hidden: List[int] = field(default_factory=list)  # widths of hidden layers in each tower
    history_length: int = 20
    history_pooling: str = "mean"  # mean (by age) | attention (by age and by what else is known of the user)
    batch_size: int = 1024  # over all ranks together
    epochs: int = 5
    learning_rate: float = 0.03  # of Adagrad
    temperature: float = 0.2  # divides the dot product
    normalize: bool = True
    dropout: float = 0.0
    logq: float = 1.0  # weight of the log Q correction
    n_sample: int = 1000  # additional uniform negatives a step; from the number of items on: all items, exactly
    gather_negatives: bool = True  # the items of all ranks' examples are negatives, not only those of the own rank
    windows_days: List[float] = field(default_factory=lambda: [1.0, 7.0, 30.0, 365.0])  # of the items' momentum
    horizon_days: float = 1.0  # how long a list is used: examples are looked at up to this long before their event
    half_life_days: Optional[float] = None  # the weight of an example halves with each
    repeats: bool = True  # every event is an example, not only a user's first one with an item
    debias: float = 0.0  # an example weighs the item's popularity ** -debias; 0 to 1
    second_head: str = "none"  # none | rating | event_type: what the towers learn beside the next item
    second_weight: float = 0.1  # of its loss
    warm_start: bool = False  # begin with the weights of the latest earlier night's model of the same settings
    full_retrain_nights: int = 0  # warm_start: every so many nights train from scratch; 0: never for their number
    seed: int = 1


@dataclass(frozen=True)
class Prod2VecConfig:
    """prod2vec: skip-gram with negative sampling over baskets or sessions."""

    sequences: str = "copurchase"  # copurchase | sessions
    trainer: str = "workers"  # workers (PyTorch on the ranks) | mllib (Spark's Word2Vec)
    lists: str = "bought_together"  # bought_together (partners; see ns_exponent) | similar (whose partners are alike)
    dim: int = 100
    window: int = 10  # items on either side, at most
    negatives: int = 5  # a positive pair
    ns_exponent: float = 0.0  # negatives are drawn by count ** ns_exponent; negative: rare items more often; 0 or
    # near it for lists of bought_together, which are then by the probability, not by its ratio to the popularity
    subsample: float = 1e-3  # share of the events above which an item's are sampled down; 0: none
    epochs: int = 10
    learning_rate: float = 0.2  # of row-wise Adagrad; falls in a line to
    min_learning_rate: float = 1e-4
    batch_size: int = 8192  # positive pairs of a step at most, over all ranks together; see models.prod2vec.feed
    seed: int = 1


@dataclass(frozen=True)
class MetaProd2VecConfig(Prod2VecConfig):
    """Meta-prod2vec: side information joins the context."""

    lists: str = "similar"  # similar
    window: int = 3
    ns_exponent: float = 0.75
    side: List[str] = field(default_factory=list)  # features of the items; []: all that the format declares
    side_weight: float = 1.0  # of the pairs with side information in the loss


@dataclass(frozen=True)
class Content2VecConfig:
    """content2vec: the items' content combined with prod2vec, trained on pairs bought together."""

    vectors: List[str] = field(default_factory=list)  # names of vectors in item_vectors; []: all there are
    combine: str = "residual"  # residual (pairwise unit) | concatenation
    dim: int = 100
    hidden: List[int] = field(default_factory=lambda: [128])  # widths of the residual unit's hidden layers
    window: int = 3
    negatives: int = 5
    epochs: int = 5
    learning_rate: float = 0.01  # of Adagrad
    batch_size: int = 4096  # positive pairs of a step, over all ranks together
    seed: int = 1


@dataclass(frozen=True)
class RulesConfig:
    """Association rules of baskets, by FP-Growth."""

    min_support: float = 0.002  # share of the baskets
    min_confidence: float = 0.1
    min_lift: float = 1.0
    max_basket_items: int = 100  # longer baskets keep their most frequent items
    max_itemset: int = 3  # items of a rule, both sides together
    miner: str = "level_wise"  # level_wise (sets up to max_itemset) | fp_growth (MLlib's, which walks longer ones too)
    max_rules: int = 5_000_000  # more candidates than this are refused with a line that says what to change


@dataclass(frozen=True)
class ItemNeighboursConfig:
    """Item-based collaborative filtering: the items whose users are alike."""

    similarity: str = "bm25"  # cosine | bm25 | tfidf | jaccard
    neighbours: int = 100  # kept of each item
    shrinkage: float = 0.0  # similarity * n / (n + shrinkage), n: users of both
    binary: bool = False  # similarities of who took what, not how often or how lately
    bm25_k1: float = 1.2
    bm25_b: float = 0.75
    fit_half_life_days: Optional[float] = None  # of the events that make the similarities; None: prepare.user_item's
    half_life_days: Optional[float] = None  # of the user's own events when lists are made; None: never


@dataclass(frozen=True)
class UserNeighboursConfig:
    """User-based collaborative filtering: the users whose items are alike."""

    similarity: str = "bm25"  # cosine | bm25 | tfidf | jaccard
    neighbours: int = 200  # kept of each user
    shrinkage: float = 0.0
    binary: bool = False  # similarities of who took what, not how often or how lately
    bm25_k1: float = 1.2
    bm25_b: float = 0.75
    fit_half_life_days: Optional[float] = None  # of the events that make the similarities; None: prepare.user_item's
    half_life_days: Optional[float] = 14.0  # of the neighbours' events when lists are made; None: never


@dataclass(frozen=True)
class SessionNeighboursConfig:
    """Session-based neighbours (V-SKNN)."""

    neighbours: int = 200
    sample: int = 0  # the most recent sessions that are looked at, of those with a common item; 0: all
    decay: str = "harmonic"  # linear | quadratic | harmonic | same: weight of the session's items, the last weighs most
    last_items: int = 20  # of the session that are looked at
    idf: float = 1.0  # power of the items' inverse frequency in the scores; 0: none
    own_items: float = 0.3  # factor of the scores of items that the session has already; 1: as others
    same_user: float = 16.0  # factor of the similarity of the same user's sessions; 1: as others


@dataclass(frozen=True)
class SessionHybridConfig:
    """The GRU's scores beside the votes of session neighbours."""

    votes_weight: float = 7.0  # what the most votes are worth, in deviations of the GRU's scores
    power: float = 0.33  # of an item's share of the most votes
    own_items: float = 0.2  # factor of the votes of items that the session has already


@dataclass(frozen=True)
class ContentConfig:
    """Content-based lists: items like those that the user took, by their vectors."""

    vectors: List[str] = field(default_factory=list)  # names of vectors in item_vectors; []: all there are
    half_life_days: Optional[float] = 30.0  # of the user's events in the profile; None: never


@dataclass(frozen=True)
class HybridConfig:
    """A blender that ranks the union of the other models' candidates."""

    models: List[str] = field(default_factory=list)  # whose candidates; []: all user models of the night
    blender: str = "logistic"  # logistic | trees (gradient-boosted)
    candidates: int = 300  # of each model
    context: bool = False  # besides the ranks in the models' lists: items' popularity and age, users' activity
    trees: int = 50
    depth: int = 5
    step: float = 0.1
    reg: float = 0.00001  # logistic
    seed: int = 1


@dataclass(frozen=True)
class UserGroupsConfig:
    """Groups of users by k-means."""

    enabled: bool = False
    vectors: str = "rfm"  # rfm (recency, frequency, value) | als | two_tower
    method: str = "kmeans"  # kmeans | bisecting (hierarchical)
    groups: List[int] = field(default_factory=lambda: [3, 4, 5, 6, 8])  # numbers tried; silhouette chooses
    sample: int = 20000  # users that the silhouette is measured on
    profile: str = ""  # attribute of the items whose values describe a group; empty: the format's title
    seed: int = 1
