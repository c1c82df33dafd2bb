"""The stages from raw logs to training tables: ingest, index, prepare."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import reduce
from typing import TYPE_CHECKING

from pyspark import inheritable_thread_target

from sparkrec.ingest import IngestResult, files_to_read
from sparkrec.ingest import ingest as ingest_files
from sparkrec.log import log_event, warn_event
from sparkrec.models.night import Inputs, Night
from sparkrec.prepare.copurchase import copurchase
from sparkrec.prepare.counts import Counts
from sparkrec.prepare.crawlers import SUSPECT, suspect, without_crawlers
from sparkrec.prepare.cut import until
from sparkrec.prepare.features import coded_types, encode_features, feature_values, new_codes, type_values
from sparkrec.prepare.image_vectors import image_vectors
from sparkrec.prepare.index import assert_dense, new_ids
from sparkrec.prepare.interactions import interactions, taken
from sparkrec.prepare.sessions import sessions
from sparkrec.prepare.support import filter_support
from sparkrec.prepare.text_vectors import category_of, ready_vectors, text_vectors
from sparkrec.prepare.user_item import user_item
from sparkrec.settings.formats import Feature
from sparkrec.warehouse import store
from sparkrec.warehouse.ledger import StageResult, Versions
from sparkrec.warehouse.tables import (
    COPURCHASE,
    EVENTS,
    FEATURE_INDEX,
    ID,
    IMAGE_VECTORS,
    INTERACTIONS,
    ITEM_FEATURES,
    ITEM_ID,
    ITEM_IDX,
    ITEM_INDEX,
    ITEM_VECTORS,
    ITEMS_TABLE,
    NAME,
    SESSIONS,
    USER_FEATURES,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    USER_ITEM,
    USERS_TABLE,
    Table,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

REASONS_SAID = 20  # of an ingest, the most frequent ones


def run_ingest(night: Night, _: Inputs) -> StageResult:
    """New log files → ``events``, ``quarantine``, ``items``, ``users``, ``files``."""
    done = ingest_files(night.spark, night.config, night.fmt, night.run_id, night.run_date, night.warehouse)
    return StageResult(
        outputs=dict(done.outputs),
        rows_in=done.rows_read,
        rows_out=done.rows_kept,
        rows_quarantined=done.rows_quarantined,
        rows_duplicate=done.rows_duplicate,
        message=_said(done),
        skipped=not done.outputs,
    )


def _said(done: IngestResult) -> str:
    """What an ingest did, in words."""
    empty = f", {done.files_empty} of them without rows" if done.files_empty else ""
    counts = (
        (done.rows_added, "added to others"), (done.rows_impressions, "impressions"),
        (done.rows_removed, "rows removed as the table's went"),
    )  # fmt: skip
    counted = "".join(f", {n} {what}" for n, what in counts if n)
    most = dict(list(done.reasons.items())[:REASONS_SAID])
    return f"{done.files_new} new files{empty}{counted}" + (f", quarantined: {most}" if most else "")


def plan_ingest(night: Night) -> tuple[bool, str]:
    """Whether there are new log files, and how many; see ``Stage.plan``."""
    n_files = files_to_read(night.spark, night.config, night.fmt, night.run_date)
    return bool(n_files), f"{n_files} new log files" if n_files else "no new log file"


def run_index(night: Night, inputs: Inputs) -> StageResult:
    """New users, items and feature values get the next free numbers; no number ever moves."""
    events = taken(until(inputs.read(EVENTS), night.run_date, night.config.logs.timezone), night.fmt.impression_events)
    outputs: Versions = {}
    added = 0
    for table, column in ((USER_INDEX, USER_ID), (ITEM_INDEX, ITEM_ID)):
        rows, count = new_ids(events.select(events[column].alias(ID)), _current(night, table))
        added += _append_index(night, table, rows, count, outputs)
    if night.fmt.item_features or night.fmt.user_features or coded_types(night.fmt.session_events):
        rows, count = new_codes(_all_feature_values(night, inputs), _current(night, FEATURE_INDEX))
        added += _append_index(night, FEATURE_INDEX, rows, count, outputs)
    else:
        store.create(night.spark, night.warehouse, FEATURE_INDEX)
        outputs[FEATURE_INDEX.name] = store.version(night.spark, night.warehouse, FEATURE_INDEX) or 0
    users, items, codes = (
        store.read(night.spark, night.warehouse, table) for table in (USER_INDEX, ITEM_INDEX, FEATURE_INDEX)
    )
    assert_dense(users, items, codes=codes)
    return StageResult(outputs=outputs, rows_out=added, message=f"{added} new users, items and feature values")


def run_prepare(night: Night, inputs: Inputs) -> StageResult:
    """Events → ``interactions`` → ``sessions``, ``copurchase``, ``user_item``; attributes → features and vectors."""
    config, fmt, zone = night.config.prepare, night.fmt, night.config.logs.timezone
    outputs: Versions = {}
    events = taken(until(inputs.read(EVENTS), night.run_date, zone), fmt.impression_events)
    events, crawlers = without_crawlers(events, config.max_user_events_per_day, zone)
    users, items, codes = (inputs.read(table) for table in (USER_INDEX, ITEM_INDEX, FEATURE_INDEX))
    indexed = interactions(events, users, items, codes, coded_types(fmt.session_events))
    outputs[INTERACTIONS.name] = store.overwrite(indexed, night.warehouse, INTERACTIONS)
    stored = store.read(night.spark, night.warehouse, INTERACTIONS)
    supported, report = filter_support(stored, config.support)
    said = report.said(config.support)
    if said:
        (warn_event if report.much else log_event)("left out of the training", what=said)
    if crawlers.said:
        warn_event("left out as crawlers", what=crawlers.said)
    if report.most_of_a_user > SUSPECT * report.rows:
        who = suspect(stored, inputs.read(USER_INDEX))
        fix = "prepare.max_user_events_per_day leaves crawlers out"
        warn_event("much of the log is of one user", what=f"{who} of {report.rows:,}", fix=fix)
    counts = {table.name: Counts() for table in (SESSIONS, COPURCHASE, USER_ITEM)}
    frames: list[tuple[Table, DataFrame]] = [
        (SESSIONS, sessions(supported, config.sessions, fmt.session_events, counts[SESSIONS.name], zone)),
        (COPURCHASE, copurchase(supported, config.baskets, fmt.purchase_events, counts[COPURCHASE.name])),
        (USER_ITEM, user_item(supported, config.user_item, fmt.event_weights, night.as_of, counts[USER_ITEM.name])),
        (ITEM_FEATURES, _features(night, inputs, "item", ITEMS_TABLE, ITEM_INDEX, fmt.item_features, ITEM_IDX)),
        (USER_FEATURES, _features(night, inputs, "user", USERS_TABLE, USER_INDEX, fmt.user_features, USER_IDX)),
    ]
    images: dict[str, int] = {}
    vectors = _item_vectors(night, inputs, images)
    if vectors is not None:
        frames.append((ITEM_VECTORS, vectors))
    with ThreadPoolExecutor(2) as pool:  # each is a chain of small jobs that leaves most of the machine idle
        write = inheritable_thread_target(night.spark)(store.overwrite)  # its jobs are named after this stage too
        writes = [pool.submit(write, frame, night.warehouse, table) for table, frame in frames]
        outputs |= {table.name: done.result() for (table, _), done in zip(frames, writes, strict=True)}
    told = {name: text for name, text in (("crawlers", crawlers.said), ("left_out", said)) if text}
    left_out = {**told, "support": asdict(report), **{name: counted.get() for name, counted in counts.items()}}
    if vectors is not None:
        left_out[ITEM_VECTORS.name] = _items_without_vectors(night, inputs) | images
        if images and images["images"] > images["images_read"] + images["images_kept"]:
            warn_event("images could not be read", **images)
    rows_in = store.rows_written(night.spark, night.warehouse, INTERACTIONS, int(outputs[INTERACTIONS.name]))
    return StageResult(outputs=outputs, rows_in=rows_in, message=json.dumps(left_out))


def _current(night: Night, table: Table) -> DataFrame | None:
    return store.find(night.spark, night.warehouse, table)


def _there(night: Night, table: Table) -> bool:
    return store.exists(night.spark, night.warehouse, table)


def _append_index(night: Night, table: Table, rows: DataFrame, count: int, outputs: Versions) -> int:
    """Appends new rows, if there are any, and notes the version; returns their number.

    They are new and of one key each by their making, and nobody else writes under the night's lock. The check that
    follows tells if that did not hold; an attempt that breaks off before it is checked when it runs again.
    """
    if count:
        outputs[table.name] = store.append(rows, night.warehouse, table)
        return store.rows_written(night.spark, night.warehouse, table, int(outputs[table.name]))
    store.create(night.spark, night.warehouse, table)
    outputs[table.name] = store.version(night.spark, night.warehouse, table) or 0
    return 0


def _attributes(night: Night, inputs: Inputs, table: Table) -> DataFrame:
    if inputs.has(table):
        return inputs.read(table)
    return night.spark.createDataFrame([], table.ddl)


def _all_feature_values(night: Night, inputs: Inputs) -> DataFrame:
    parts = [
        feature_values(_attributes(night, inputs, ITEMS_TABLE), night.fmt.item_features, "item"),
        feature_values(_attributes(night, inputs, USERS_TABLE), night.fmt.user_features, "user"),
    ]
    if types := coded_types(night.fmt.session_events):
        parts.append(type_values(night.spark, types))
    return reduce(lambda a, b: a.unionByName(b), parts)


def _features(
    night: Night, inputs: Inputs, prefix: str, table: Table, index: Table, features: tuple[Feature, ...], column: str
) -> DataFrame:
    values = feature_values(_attributes(night, inputs, table), features, prefix)
    return encode_features(values, inputs.read(FEATURE_INDEX), inputs.read(index), features, prefix, column)


def _item_vectors(night: Night, inputs: Inputs, images: dict[str, int]) -> DataFrame | None:
    """Rows of ``item_vectors``: of texts, of images and ready ones; None where there are none of them, nor a table.

    What became of the images is added to ``images``.
    """
    config, index = night.config.prepare.text, inputs.read(ITEM_INDEX)
    items = _attributes(night, inputs, ITEMS_TABLE)
    columns = config.columns or [night.fmt.title or ""]
    parts = [ready_vectors(items, index)]
    if config.method != "none":
        category = category_of(night.fmt.item_features, config.category) if config.method == "cnn" else None
        parts.append(text_vectors(items, index, columns, config, category))
    if night.config.prepare.image.column:
        known = _current(night, IMAGE_VECTORS)
        made = image_vectors(items, index, night.config.prepare.image, known)
        images |= made.counts
        if made.counts["images_read"]:
            store.upsert(made.fresh, night.warehouse, IMAGE_VECTORS)
        parts.append(made.rows)
    found = [part for part in parts if part is not None]
    if not found and _there(night, ITEM_VECTORS):
        return night.spark.createDataFrame([], ITEM_VECTORS.ddl)  # an earlier night had some
    return reduce(lambda a, b: a.unionByName(b), found) if found else None


def _items_without_vectors(night: Night, inputs: Inputs) -> dict[str, int]:
    """For each name the number of items that have no vector."""
    n_items = inputs.read(ITEM_INDEX).count()
    counted = store.read(night.spark, night.warehouse, ITEM_VECTORS).groupBy(NAME).count().collect()
    return {f"without_{row[NAME]}": n_items - row["count"] for row in counted}
