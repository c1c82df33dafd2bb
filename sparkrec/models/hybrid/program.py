"""The hybrid in a night: what it learns from are candidates of models that had not seen what came next."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from pyspark import StorageLevel
from pyspark.sql import functions as F

from sparkrec.errors import NothingToTrain
from sparkrec.evaluation.split import holdout_users
from sparkrec.models.hybrid import MODEL
from sparkrec.models.hybrid import blender as hybrid
from sparkrec.models.hybrid import train as ranks
from sparkrec.models.hybrid.joined import Joined, rotation
from sparkrec.models.hybrid.scorer import HybridScorer, hybrid_scorer, vectors_of
from sparkrec.models.hybrid.serve import NetworkBlender
from sparkrec.models.hybrid.train import BlenderTask, snapshot_columns, write_users
from sparkrec.models.night import Inputs, Night
from sparkrec.models.parts import (
    Part,
    blend_cutoff,
    blended_models,
    epochs,
    index_size,
    model_cutoff,
    snapshot,
    train_parts,
    with_parts,
)
from sparkrec.models.program import Program
from sparkrec.models.scorer import Wanted
from sparkrec.models.scorers import seen_pairs
from sparkrec.retrieval.topk import SEEN
from sparkrec.warehouse.cards import BLEND, HOLDOUT, ModelCard, part_path
from sparkrec.warehouse.ledger import StageResult
from sparkrec.warehouse.tables import (
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_IDX,
    ITEM_INDEX,
    ITEM_VECTORS,
    USER_FEATURES,
    USER_IDX,
    USER_INDEX,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def train(night: Night, inputs: Inputs) -> StageResult:
    """The blender, by MLlib, or a network on Horovod workers fed by Petastorm.

    The hold-out's learns how candidates of the models as of ``blend_cutoff`` were taken until the cutoff; the one to
    publish, how those as of the cutoff were taken until the night. Models that have no such part are left out.
    """
    config, cutoff = night.config.hybrid, model_cutoff(night, inputs, "hybrid")

    def train_part(part: Part, path: str, meta: dict[str, Any]) -> str:
        base, since = (BLEND, blend_cutoff(night, cutoff)) if part.name == HOLDOUT else (HOLDOUT, cutoff)
        models = with_parts(night, blended_models(night.config), base, part.name)
        if not models:
            raise NothingToTrain(f"no model of the night has the parts {base} and {part.name}")
        settings, weights = night.config.evaluation, night.fmt.event_weights
        held_out = holdout_users(inputs.read(INTERACTIONS), since, part.before, weights, settings.cold_below)
        truth = held_out.pairs
        users = truth.select(USER_IDX).distinct().persist(StorageLevel.MEMORY_AND_DISK)
        seen = seen_pairs(night, inputs, since).groupBy(USER_IDX).agg(F.collect_list(ITEM_IDX).alias(SEEN))
        scorer = hybrid_scorer(night, inputs, models, base, since)
        rows = scorer.candidates(
            users.join(seen, USER_IDX, "left"), Wanted((USER_IDX,), config.candidates, night.config.topk)
        )
        taken, described = truth.select(USER_IDX, ITEM_IDX), {**meta, "models": models, "blender": config.blender}
        more = ""
        if config.blender == "network":
            known = vectors_of(night, inputs, models, base, since)
            served = vectors_of(night, inputs, models, part.name, part.before)
            n, hits, more = _network(night, inputs, part, path, described, scorer, rows, taken, known, served)
        else:
            blender, n, hits = hybrid.fit_blender(rows, taken, scorer.features, config)
            hybrid.save_blender(blender, path, described)
        users.unpersist()
        held_out.kept.unpersist()
        return f"{hits} of {n} candidates taken from {since:%Y-%m-%d} on{more}"

    return train_parts(night, inputs, "hybrid", train_part, cutoff)


def _network(
    night: Night,
    inputs: Inputs,
    part: Part,
    path: str,
    described: dict[str, Any],
    scorer: HybridScorer,
    rows: DataFrame,
    taken: DataFrame,
    known: Joined,
    served: Joined,
) -> tuple[int, int, str]:
    """Trains the network on labelled candidates; see ``train``.

    Args:
        night: The night.
        inputs: The stage's.
        part: The part.
        path: Its folder.
        described: What ``model.json`` keeps.
        scorer: Names the features.
        rows: The candidates with these.
        taken: ``(user_idx, item_idx)``: what their users took.
        known: The vectors of the models that proposed.
        served: Those of the part that the network will serve with.

    Returns:
        The number of candidates, of those taken, and what there is to say of the training.
    """
    names, models = scorer.features, tuple(known.items)
    examples = snapshot_columns(hybrid.labelled(rows, taken), names).persist(StorageLevel.MEMORY_AND_DISK)
    try:
        n, hits = hybrid.counted_hits(examples)
        trained = [str(inputs.versions.get(f"models/{name}")) for name in described["models"]]
        decides = (inputs.settings, described["models"], trained, names)
        manifest = snapshot(night, MODEL.name, part, inputs, examples, USER_IDX, (USER_IDX, ITEM_IDX), settings=decides)
        mine = None if known.users is None else known.users.join(examples.select(USER_IDX).distinct(), USER_IDX, "semi")
        write_users(mine, manifest.path)
    finally:
        examples.unpersist()
    turned = {name: rotation(served.items[name], known.items[name]) for name in models}
    task = BlenderTask(
        snapshot_path=manifest.path,
        model_path=path,
        config=night.config.hybrid,
        train=night.config.train,
        features=tuple(names),
        models=models,
        widths=known.widths,
        items=known.item_matrix(index_size(inputs, ITEM_INDEX)),
        rotations={name: turn for name, (turn, _) in turned.items()},
        meta=described,
    )
    near = "".join(f", {name} turned to a cosine of {cosine:.2f}" for name, (_, cosine) in turned.items())
    return n, hits, f"; {epochs(night, ranks.train, (task,))}{near}"


def scorer(night: Night, inputs: Inputs, card: ModelCard, part: str, as_of: datetime) -> HybridScorer:
    """The part's blender, over the same part of the models that it was trained with."""
    path = part_path(night.warehouse, card.model, night.run_date, part)
    meta = hybrid.read_meta(path)
    blender: Any
    if meta["blender"] == "network":
        blender = NetworkBlender.load(path, vectors_of(night, inputs, meta["models"], part, as_of))
    else:
        blender, _ = hybrid.load_blender(path)
    return hybrid_scorer(night, inputs, meta["models"], part, as_of, blender)


def _depends(night: Night) -> tuple[Any, ...]:
    config, fmt = night.config, night.fmt
    popular = (config.topk, config.prior, config.evaluation.recent_days, config.evaluation.cold_below)
    return (*popular, fmt.event_weights, fmt.session_events, fmt.recommend_seen)


PROGRAM = Program(
    train=train,
    reads=(INTERACTIONS, USER_INDEX, ITEM_INDEX, ITEM_FEATURES, USER_FEATURES),
    optional=(ITEM_VECTORS,),
    depends=_depends,
    models=blended_models,
    uses_ranks=lambda config: config.hybrid.blender == "network",
    scorer=scorer,
)
