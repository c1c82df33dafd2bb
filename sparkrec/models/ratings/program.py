"""Predicted ratings in a night: trained on Horovod workers fed by Petastorm, served from the model's folder."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import (
    Part,
    Training,
    index_size,
    model_cutoff,
    pretrained_part,
    require_model,
    snapshot,
    train_parts,
    user_item_of,
)
from sparkrec.models.program import PairRatings, Program
from sparkrec.models.ratings import examples
from sparkrec.models.ratings import train as ranks
from sparkrec.models.ratings.scorer import RatingScorer
from sparkrec.models.ratings.serve import load_served
from sparkrec.models.two_tower.examples import item_codes
from sparkrec.settings.config import Config
from sparkrec.settings.formats import LogFormat
from sparkrec.warehouse.cards import ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    EVENTS,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_IDX,
    ITEM_INDEX,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PRETRAINED = "prod2vec"  # whose vectors of the items word2vec_mlp reads


def train(night: Night, inputs: Inputs) -> StageResult:
    """The network that predicts ratings, on Horovod workers."""
    config, cutoff = night.config.ratings, model_cutoff(night, inputs, "ratings")
    n_users, n_items = index_size(inputs, USER_INDEX), index_size(inputs, ITEM_INDEX)
    user_layout, user_codes = item_codes(inputs.read(USER_FEATURES).withColumnRenamed(USER_IDX, ITEM_IDX), n_users)
    item_layout, codes = item_codes(inputs.read(ITEM_FEATURES), n_items)

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> Training:
        # What is rated seldom, too: biases are drawn towards 0, and ``min_support`` keeps it out of lists.
        pairs = examples.rated(user_item_of(night, inputs, part, every=True)).persist(StorageLevel.MEMORY_AND_DISK)
        try:
            manifest = snapshot(night, "ratings", part, inputs, pairs, examples.GROUP, examples.ORDER)
            if not manifest.rows:
                raise NothingToTrain(f"no ratings to learn ({part.name})", fix="a log whose format declares value")
            words_path, n_words = _words(night, inputs, part, pairs) if config.network == "text" else (None, 0)
        finally:
            pairs.unpersist()
        vectors = None
        if config.network == "word2vec_mlp":
            vectors = pretrained_part(night, PRETRAINED, part, cutoff)
        task = ranks.RatingTask(
            snapshot_path=manifest.path,
            model_path=path,
            config=config,
            train=night.config.train,
            n_users=n_users,
            n_items=n_items,
            user_features=user_layout,
            item_features=item_layout,
            user_codes=user_codes,
            item_codes=codes,
            meta=meta,
            words_path=words_path,
            vocabulary=n_words,
            item_vectors_path=vectors,
        )
        return Training(ranks.train, (task,))

    return train_parts(night, inputs, "ratings", train_part, cutoff)


def _words(night: Night, inputs: Inputs, part: Part, pairs: DataFrame) -> tuple[str, int]:
    """The snapshot of the reviews' words, and how many different ones there are."""
    config, indexes = night.config.ratings, (inputs.read(USER_INDEX), inputs.read(ITEM_INDEX))
    words = examples.review_words(
        inputs.read(EVENTS), *indexes, pairs, night.fmt.event_weights, part.before, config
    ).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        numbers = examples.vocabulary(words, config)
        if not numbers:
            raise NothingToTrain(f"no word is in {config.min_df} reviews", fix="lower ratings.min_df")
        rows = examples.word_rows(words, numbers)
        decides = (config.words, config.vocabulary, config.min_df)
        where = snapshot(
            night, "ratings_words", part, inputs, rows, examples.GROUP, examples.WORD_ORDER, settings=decides
        )
        return where.path, len(numbers)
    finally:
        words.unpersist()


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> RatingScorer:
    """The candidates by predicted rating; what came after the training is not seen."""
    path, config = part_path(night.warehouse, card.model, night.run_date, part), night.config.ratings
    served = load_served(path)
    items = served.candidates(config.candidates, config.min_support)
    return RatingScorer(path, items, card.n_items, float(served.model["scale"]), config.kappa)


def check(config: Config, fmt: LogFormat) -> None:
    """Refuses a log without ratings, or without the texts or the model that the network reads."""
    network = config.ratings.network
    if fmt.value is None:
        raise UserError("the log has no ratings to learn", where="models=[ratings]", fix=f"declare value in {fmt.name}")
    if network == "text" and fmt.text is None:
        fix = f"declare text in {fmt.name}, or set ratings.network=mlp"
        raise UserError("the log has no reviews to read", where="ratings.network=text", fix=fix)
    if network == "word2vec_mlp":
        require_model(config, PRETRAINED, "ratings.network=word2vec_mlp", "set ratings.network=mlp")


def pair_ratings(path: str) -> PairRatings:
    """What predicts the ratings of pairs."""
    return load_served(path).predict


def pair_deviations(path: str) -> PairRatings | None:
    """What tells how sure these are, where it was trained for that."""
    served = load_served(path)
    return served.deviation if served.uncertain else None


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_ITEM, ITEM_FEATURES, USER_FEATURES, USER_INDEX, ITEM_INDEX),
    optional=(EVENTS,),
    depends=lambda night: (night.fmt.item_features, night.fmt.user_features),
    models=lambda config: [PRETRAINED] if config.ratings.network == "word2vec_mlp" else [],
    check=check,
    scorer=scorer,
    prior=lambda prior: (0.0, prior.ratings),
    rates=lambda config: True,
    pair_ratings=pair_ratings,
    pair_deviations=pair_deviations,
)
