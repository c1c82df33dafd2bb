"""Settings of the model, with what they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import List

from sparkrec.errors import UserError
from sparkrec.settings.setting import (
    COUNT,
    COUNT_OR_NONE,
    DROPPED,
    INNER_SHARE,
    NOT_NEGATIVE,
    PAIR,
    POSITIVE,
    SEED,
    STRENGTH,
    WIDTHS,
    setting,
)

FACTORS = ("mf", "gmf")  # of the networks those without layers: of users and items they know nothing but who they are
NETWORKS = (*FACTORS, "mlp", "neumf", "cross", "word2vec_mlp", "text")


@dataclass(frozen=True)
class RatingsConfig:
    """Predicted ratings: the mean, the biases of user and item, and what a network makes of both."""

    network: str = setting(
        "mlp",
        "mf | gmf | mlp | neumf | cross | word2vec_mlp | text: p·q; weighted p·q; layers over ids, features and "
        "statistics; gmf and mlp; crosses of all inputs (DCN-v2); mlp with the night's prod2vec; mlp with a CNN over "
        "others' reviews",
        choices=NETWORKS,
        tried=("mf", "mlp", "cross"),
    )
    loss: str = setting(
        "squared",
        "squared | absolute | logistic (ratings scaled into 0 to 1)",
        choices=["squared", "absolute", "logistic"],
    )
    biases: bool = setting(True, "the biases of user and item are expected of a rating; false: the mean alone")
    dim: int = setting(16, "dimensions of the embeddings", COUNT, tried=(8, 16, 32))
    hidden: List[int] = setting([64], "widths of the hidden layers; []: none", WIDTHS)
    cross_layers: int = setting(2, "cross: layers of feature crosses", COUNT)
    dropout: float = setting(0.5, "of embeddings and hidden layers", DROPPED, tried=(0.2, 0.5))
    statistics: bool = setting(
        True, "layers read how often and how high others' ratings are of the item, and the user's of other items"
    )
    hide: float = setting(
        0.1, "share of the examples whose user, and whose item, layers see as new: they learn what to say then", DROPPED
    )
    penalty: str = setting(
        "weighted",
        "on embeddings: weighted (reg for each rating) | priors (PMF: Gaussian, with these deviations)",
        choices=["weighted", "priors"],
    )
    reg: float = setting(0.1, "weighted: lambda", NOT_NEGATIVE, tried=(0.03, 0.1, 0.5, 2.0))
    sigma: float = setting(1.0, "priors: of a rating, as a share of what the biases leave", POSITIVE)
    sigma_users: float = setting(0.1, "priors: of the users' embeddings", POSITIVE)
    sigma_items: float = setting(0.1, "priors: of the items' embeddings", POSITIVE)
    nonnegative: bool = setting(False, "embeddings of at least 0 only (NNMF)")
    posterior: str = setting(
        "none",
        "none | sgld (mf with priors): after the epochs samples are drawn from the factors' posterior by stochastic "
        "gradient Langevin dynamics; predictions are their mean and have a deviation",
        choices=["none", "sgld"],
    )
    sgld_step: float = setting(0.1, "sgld: step of a pass, as a share of each row's own variance", INNER_SHARE)
    burn_in: int = setting(5, "sgld: passes before the first sample", COUNT_OR_NONE)
    samples: int = setting(10, "sgld: samples, one a pass", PAIR)
    kappa: float = setting(
        0.0, "sgld: lists are by mean + kappa * deviation: above 0 what is uncertain is tried, below 0 left", STRENGTH
    )
    epochs: int = setting(6, "passes over the ratings", COUNT, effort=True)
    batch_size: int = setting(512, "ratings of a step, over all ranks together", COUNT)
    learning_rate: float = setting(0.01, "of Adagrad; falls in a line to 0", POSITIVE, tried=(0.005, 0.01, 0.03))
    tuned: bool = setting(False, "word2vec_mlp: prod2vec's vectors learn on; false: they stay as they are")
    vocabulary: int = setting(10_000, "text: the words in most reviews", COUNT)
    min_df: int = setting(5, "text: reviews that a word must be in", COUNT)
    words: int = setting(100, "text: words of a review that are read, from its beginning", COUNT)
    reviews: int = setting(6, "text: reviews of the user, and of the item, that an example draws in training", COUNT)
    word_dim: int = setting(32, "text: dimensions of the words", COUNT)
    filters: int = setting(16, "text: filters of each width", COUNT)
    filter_widths: List[int] = setting([3, 4, 5], "text: words that a filter spans", WIDTHS)
    k_max: int = setting(1, "text: largest values that are kept of each filter; 1: the maximum over time", COUNT)
    min_support: int = setting(10, "ratings that an item in a list must have", COUNT)
    candidates: int = setting(1000, "items that are ranked for a user: those with most ratings", COUNT)
    seed: int = setting(1, bounds=SEED)

    @property
    def passes(self) -> int:
        """Over the ratings, those that draw samples among them."""
        return self.epochs + (self.burn_in + self.samples if self.posterior == "sgld" else 0)

    def check(self) -> None:
        """Refuses settings that do not go together."""
        if self.nonnegative and self.network not in FACTORS:
            where = f"ratings.nonnegative=true, ratings.network={self.network}"
            raise UserError("only factors can be held above 0", where=where, fix="set ratings.network=mf, or gmf")
        wanted = {"network": "mf", "loss": "squared", "penalty": "priors", "nonnegative": False}
        others = [name for name, value in wanted.items() if getattr(self, name) != value]
        if self.posterior == "sgld" and others:
            where = ", ".join(["ratings.posterior=sgld", *(f"ratings.{n}={getattr(self, n)}" for n in others)])
            fix = "set " + " ".join(f"ratings.{name}={wanted[name]}" for name in others).lower()
            raise UserError("only factors with Gaussian priors have a posterior", where=where, fix=fix)
        if self.kappa and self.posterior == "none":
            where, fix = f"ratings.kappa={self.kappa}", "set ratings.posterior=sgld, or ratings.kappa=0"
            raise UserError("predictions have no deviation", where=where, fix=fix)
        if self.network == "text" and max(self.filter_widths, default=0) > self.words:
            where = f"ratings.filter_widths={self.filter_widths}, ratings.words={self.words}"
            raise UserError("a filter spans more words than are read", where=where, fix="raise ratings.words")
        if self.network == "text" and not self.filter_widths:
            raise UserError("a CNN without filters", where="ratings.filter_widths=[]", fix="e.g. [3, 4, 5]")
