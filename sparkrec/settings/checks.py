"""What settings may be: choices, and what goes together; the numbers' bounds are in ``bounds``."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

from sparkrec.errors import UserError
from sparkrec.models import MODELS, OURS, models_for
from sparkrec.models.model import Lists
from sparkrec.settings.bounds import BOUNDS, check_bounds, check_declared
from sparkrec.zones import zone_of

if TYPE_CHECKING:
    from sparkrec.settings.config import Config, GruConfig, TopKConfig

CHOICES: dict[str, list[str]] = {
    "ingest.on_changed_file": ["refuse", "replace"],
    "prepare.sessions.by": ["gap", "session_id"],
    "prepare.baskets.by": ["basket_id", "window"],
    "prepare.user_item.rating": ["last", "mean"],
    "prepare.text.method": ["none", "tfidf", "word2vec"],
    "als.feedback": ["explicit", "implicit"],
    "gate.metric": ["recall", "mrr"],
    "gate.unjudged": ["popularity", "model"],
    "two_tower.history_pooling": ["mean", "attention"],
    "two_tower.second_head": ["none", "rating", "event_type"],
    "topk.index": ["exact", "hnsw", "ivf"],
    "gru.network": ["plain", "parallel", "hierarchical-init", "hierarchical-all"],
    "gru.schedule": ["simultaneous", "alternating", "residual", "interleaving"],
    "gru.embedding": ["constrained", "separate", "none"],
    "gru.session_order": ["time", "random"],
    "gru.loss": ["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"],
    "evaluation.ties": ["conservative", "standard", "median"],
    "prod2vec.sequences": ["copurchase", "sessions"],
    "prod2vec.trainer": ["workers", "mllib"],
    "prod2vec.lists": ["similar", "bought_together"],
    "meta_prod2vec.sequences": ["copurchase", "sessions"],
    "meta_prod2vec.trainer": ["workers"],
    "meta_prod2vec.lists": ["similar"],
    "content2vec.combine": ["residual", "concatenation"],
    "item_neighbours.similarity": ["cosine", "bm25", "tfidf", "jaccard"],
    "user_neighbours.similarity": ["cosine", "bm25", "tfidf", "jaccard"],
    "session_neighbours.decay": ["linear", "quadratic", "harmonic", "same"],
    "hybrid.blender": ["trees", "logistic"],
    "rules.miner": ["level_wise", "fp_growth"],
    "topk.similar_index": ["exact", "lsh"],
    "user_groups.vectors": ["rfm", "als", "two_tower"],
    "user_groups.method": ["kmeans", "bisecting"],
    "train.device": ["auto", "cpu", "cuda"],
    "train.matmul_precision": ["highest", "high", "medium"],
}


def check(config: Config) -> None:
    """Refuses settings outside of their range, and settings that do not go together.

    Raises:
        UserError: The first of them.
    """
    for dotted, allowed in CHOICES.items():
        value = _value(config, dotted)
        if value not in allowed:
            raise UserError("wrong configuration value", where=f"{dotted}={value}", fix=f"one of {', '.join(allowed)}")
    unknown = [m for m in config.models if m not in MODELS]
    if unknown:
        raise UserError("unknown model", where=f"models={config.models}", fix=f"choose among {', '.join(MODELS)}")
    if not config.models or len(set(config.models)) < len(config.models):
        raise UserError("wrong configuration value", where=f"models={config.models}", fix="one or more, each once")
    for dotted, bounds in BOUNDS.items():
        check_bounds(dotted, _value(config, dotted), bounds)
    for model in MODELS.values():
        if model not in OURS:
            check_declared(model.name, getattr(config, model.name))
    _check_pairs(config)
    zone_of(config.logs.timezone)
    excluded_attributes(config.topk)
    if config.als.debias and config.als.feedback == "explicit":
        where = f"als.debias={config.als.debias}, als.feedback=explicit"
        raise UserError("ratings cannot be weighted", where=where, fix="set als.debias=0, or als.feedback=implicit")
    if config.gate.enabled and config.gate.k not in config.evaluation.k:
        fix = f"one of evaluation.k={config.evaluation.k}"
        raise UserError("the gate looks at a list length that is not judged", where=f"gate.k={config.gate.k}", fix=fix)
    if config.train.snapshot_files % config.train.ranks:
        raise UserError(
            "train.snapshot_files must be a multiple of train.ranks",
            where=f"train.snapshot_files={config.train.snapshot_files}, train.ranks={config.train.ranks}",
            fix=f"for example train.snapshot_files={config.train.ranks * 4}",
        )
    lists, models = config.maintenance.keep_list_nights, config.maintenance.keep_nights
    if lists and (not models or lists < models):
        raise UserError(  # a warm start takes published models alone
            "lists must be kept as long as models",
            where=f"maintenance.keep_list_nights={lists}, maintenance.keep_nights={models}",
            fix="raise maintenance.keep_list_nights, or set it to 0",
        )
    if config.prod2vec.lists == "bought_together" and config.prod2vec.trainer == "mllib":
        raise UserError(
            "Spark's Word2Vec keeps no context vectors, which lists of bought_together are searched by",
            where="prod2vec.lists=bought_together, prod2vec.trainer=mllib",
            fix="set prod2vec.lists=similar, or prod2vec.trainer=workers",
        )
    _check_gru(config.gru)
    _check_models(config)


def _check_pairs(config: Config) -> None:
    """Refuses lengths of which the smallest is above the largest, and a date that is none."""
    sessions, baskets = config.prepare.sessions, config.prepare.baskets
    for key, low, high in (
        ("prepare.sessions.m{}_length", sessions.min_length, sessions.max_length),
        ("prepare.baskets.m{}_items", baskets.min_items, baskets.max_items),
    ):
        if low > high:
            where = f"{key.format('in')}={low}, {key.format('ax')}={high}"
            raise UserError("nothing is as long as that", where=where, fix=f"lower {key.format('in')}")
    try:
        date.fromisoformat(config.ingest.min_ts)
    except ValueError as error:
        where = f"ingest.min_ts={config.ingest.min_ts}"
        raise UserError("wrong configuration value", where=where, fix="a date, YYYY-MM-DD") from error


def _check_models(config: Config) -> None:
    """Refuses models without the models that they build on."""
    for model in config.models:
        missing = [needed for needed in MODELS[model].needs if needed not in config.models]
        if missing:
            fix = f"add {', '.join(missing)} to models"
            raise UserError(f"{model} builds on {', '.join(missing)}", where=f"models={config.models}", fix=fix)
    if config.user_groups.enabled and config.user_groups.vectors not in ("rfm", *config.models):
        where = f"user_groups.vectors={config.user_groups.vectors}, models={config.models}"
        raise UserError("groups of users need a model's vectors", where=where, fix="train that model, or say rfm")
    if not any(MODELS[model].blends for model in config.models):
        return
    able = [name for name in models_for(Lists.USERS) if not MODELS[name].blends]
    mine = [name for name in able if name in config.models]
    strange = [name for name in config.hybrid.models if name not in mine]
    if strange or not mine:
        where = f"hybrid.models={config.hybrid.models}, models={config.models}"
        fix = f"choose among {', '.join(mine or able)}"
        raise UserError("the hybrid blends user models of the night", where=where, fix=fix)


def excluded_attributes(topk: TopKConfig) -> list[tuple[str, str]]:
    """What ``topk.exclude`` says: attribute and value of the items that no list may hold.

    Raises:
        UserError: A text is not attribute=value.
    """
    parts = [text.partition("=") for text in topk.exclude]
    if not all(name and equals and value for name, equals, value in parts):
        fix = "attribute=value, an attribute of the table items, e.g. [available=false]"
        raise UserError("wrong configuration value", where=f"topk.exclude={topk.exclude}", fix=fix)
    return [(name, value) for name, _, value in parts]


def _value(config: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        config = getattr(config, part)
    return config


def _check_gru(config: GruConfig) -> None:
    """Refuses settings of the GRU's network that do not go together."""
    turns = len(config.features) + 1
    in_turn = config.schedule in ("alternating", "residual")
    alone = config.network != "plain" or config.bloom_rows > 0
    for wrong, what, where, fix in [
        (config.network == "parallel" and not config.features, "the parallel network needs features", "gru.features",
         "name vectors of the table item_vectors, e.g. [text_tfidf]"),
        (config.network != "parallel" and config.features, "only the parallel network has features",
         f"gru.network={config.network}, gru.features={config.features}", "set gru.network=parallel"),
        (config.warm_start and config.features, "vectors of texts differ from night to night",
         f"gru.warm_start=true, gru.features={config.features}", "set gru.warm_start=false"),
        (config.network == "parallel" and in_turn and config.epochs < turns, "fewer epochs than sub-networks",
         f"gru.epochs={config.epochs}, gru.schedule={config.schedule}", f"set gru.epochs={turns} or more"),
        (alone and config.embedding != "constrained", "only the plain network can do without constrained embedding",
         f"gru.embedding={config.embedding}, gru.network={config.network}, gru.bloom_rows={config.bloom_rows}",
         "set gru.embedding=constrained"),
        (config.bloom_rows > 0 and config.network != "plain", "only the plain network has Bloom embeddings",
         f"gru.network={config.network}, gru.bloom_rows={config.bloom_rows}", "set gru.bloom_rows=0"),
        (alone and config.bptt > 1, "only the plain network's gradients go back over several events",
         f"gru.bptt={config.bptt}, gru.network={config.network}, gru.bloom_rows={config.bloom_rows}", "set gru.bptt=1"),
        (0 < config.bloom_rows < config.bloom_hashes, "more positions than rows",
         f"gru.bloom_rows={config.bloom_rows}, gru.bloom_hashes={config.bloom_hashes}", "raise gru.bloom_rows"),
    ]:  # fmt: skip
        if wrong:
            raise UserError(what, where=where, fix=fix)
