"""Judges the night's hold-out models, and popularity beside them, on what came after the cutoff."""

from __future__ import annotations

from sparkrec.evaluation.protocol import protocol, written
from sparkrec.evaluation.values import (
    BASKETS_AGAIN_SPLIT,
    BASKETS_SPLIT,
    SESSIONS_AGAIN_SPLIT,
    SESSIONS_SPLIT,
    USERS_AGAIN_SPLIT,
    USERS_SPLIT,
    MetricValue,
)
from sparkrec.log import warn_event
from sparkrec.models.night import Inputs, Night
from sparkrec.pipeline.judge import Calibrations, Judged, judge, unjudged
from sparkrec.warehouse import direct
from sparkrec.warehouse.cards import ModelCard, read_card
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import HIGH, LOW, METRICS, MODEL_VERSION, PROTOCOL, RATING_CALIBRATION, RUN_DATE, VALUE


def run_evaluate(night: Night, inputs: Inputs) -> StageResult:
    """Metrics of every model and of popularity into ``metrics``; of predicted ratings ``rating_calibration``, too."""
    cards = [read_card(night.warehouse, model, night.run_date) for model in night.config.models]
    calibrations: Calibrations = []
    judged = judge(night, inputs, cards, calibrations=calibrations)

    def of(card: ModelCard) -> list[MetricValue]:
        return [value for model, _, _, value in judged if model == card.model]

    notes = [f"{card.model} NOT JUDGED: {why}" for card in cards if (why := unjudged(night, card, of(card)))]
    for note in notes:
        warn_event("model not judged", reason=note)
    how = {split: written(protocol(night.config, night.fmt, split)) for _, _, split, _ in judged}
    rows = [
        {
            RUN_DATE: night.run_date,
            "model": model,
            MODEL_VERSION: version,
            "metric": value.metric,
            "k": value.k,
            VALUE: float(value.value),
            "n": value.n,
            "split": split,
            PROTOCOL: how[split],
            LOW: value.low,
            HIGH: value.high,
        }
        for model, version, split, value in judged
    ]
    version = direct.replace_night(rows, night.warehouse, METRICS, night.run_date)
    outputs: Versions = {METRICS.name: version}
    if calibrations:
        parts = [(night.run_date, model, version, *one) for model, version, one in calibrations]
        named = [dict(zip(RATING_CALIBRATION.column_names, part, strict=True)) for part in parts]
        outputs[RATING_CALIBRATION.name] = direct.replace_night(
            named, night.warehouse, RATING_CALIBRATION, night.run_date
        )
    return StageResult(outputs=outputs, rows_out=len(rows), message=", ".join([*notes, *_summary(judged)]))


def _summary(judged: list[Judged]) -> list[str]:
    """Recall at the largest k of each model, for the ledger's message."""
    whole = (USERS_SPLIT, SESSIONS_SPLIT, BASKETS_SPLIT, USERS_AGAIN_SPLIT, SESSIONS_AGAIN_SPLIT, BASKETS_AGAIN_SPLIT)
    recalls = [(split, model, v) for model, _, split, v in judged if v.metric == "recall" and split in whole]
    largest = max((v.k or 0 for _, _, v in recalls), default=0)
    return [f"{model} recall@{v.k} {v.value:.4f} ({split})" for split, model, v in recalls if v.k == largest]
