"""The lists of a few users, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import polars as pl

from sparkrec.errors import UserError
from sparkrec.report.data import version_of
from sparkrec.report.facts import Listed, UserLists
from sparkrec.settings.format_files import load_format
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.query import TITLE
from sparkrec.warehouse.reading import collected, exists, scan_rows
from sparkrec.warehouse.tables import (
    ID,
    IDX,
    INTERACTIONS,
    ITEM_ID,
    ITEM_IDX,
    ITEM_INDEX,
    ITEMS_TABLE,
    KEY_TYPE,
    RANK,
    RUN_DATE,
    SCORE,
    TS,
    USER_ID,
    USER_IDX,
    USER_INDEX,
    topk_table,
)

SHOWN, RECENT = 5, 3  # places of a list, items before it
_SEED = 7
Key = tuple[str, bool]  # id, whether it is an anonymous session's


def user_lists(
    warehouse: Warehouse,
    models: Sequence[str],
    run_date: date,
    versions: dict[str, int | str],
    log_format: str,
    n_users: int,
) -> tuple[UserLists, ...]:
    """The lists of some users of a night, of those that most models have lists for.

    Args:
        warehouse: Where the tables are.
        models: The models that have lists.
        run_date: The night.
        versions: Those that the night wrote.
        log_format: It says which attribute of the items is their title.
        n_users: How many users.

    Raises:
        UserError: A table or its version is missing, or damaged.
    """
    lists = {model: _lists(warehouse, model, run_date) for model in models}
    keys = _keys(lists, n_users)
    wanted = pl.col(USER_ID).is_in([key for key, _ in keys]) & (pl.col(RANK) <= SHOWN)
    rows = {model: collected(frame.filter(wanted).sort(RANK)) for model, frame in lists.items()}
    recent = _recent(warehouse, [key for key, is_session in keys if not is_session], versions)
    shown = {item for frame in rows.values() for item in frame[ITEM_ID]} | {i for ids in recent.values() for i in ids}
    titles = _titles(warehouse, sorted(shown), title_column(log_format))
    return tuple(
        UserLists(
            key,
            is_session,
            tuple(titles.get(item) or item for item in recent.get(key, ())) if not is_session else (),
            tuple((model, _listed(frame, (key, is_session), titles)) for model, frame in rows.items()),
        )
        for key, is_session in keys
    )


def title_column(log_format: str) -> str:
    """The attribute of ``items`` that is shown to people; ``title`` where the format is no longer there."""
    try:
        return load_format(log_format).title or TITLE
    except UserError:
        return TITLE


def _lists(warehouse: Warehouse, model: str, run_date: date) -> pl.LazyFrame:
    """A model's lists of the night, with a column that says whether the key is a session's."""
    table = topk_table(model)
    is_session = pl.col(KEY_TYPE) == "session" if KEY_TYPE in table.column_names else pl.lit(False)
    mine = scan_rows(warehouse, table).filter(pl.col(RUN_DATE) == run_date)
    return mine.select(USER_ID, is_session.alias("is_session"), RANK, ITEM_ID, pl.col(SCORE).cast(pl.Float64))


def _keys(lists: dict[str, pl.LazyFrame], n: int) -> list[Key]:
    """Some keys that many models have lists for: the smallest by a hash, which are the same ones in each model."""
    found: dict[Key, list[int]] = {}
    for frame in lists.values():
        hashed = frame.filter(pl.col(RANK) == 1).select(USER_ID, "is_session", h=pl.col(USER_ID).hash(_SEED))
        for key, is_session, value in collected(hashed.bottom_k(4 * n, by="h")).iter_rows():
            found.setdefault((key, is_session), []).append(value)
    return sorted(found, key=lambda key: (-len(found[key]), found[key][0], key))[:n]


def _listed(frame: pl.DataFrame, key: Key, titles: dict[str, str]) -> tuple[Listed, ...]:
    mine = frame.filter((pl.col(USER_ID) == key[0]) & (pl.col("is_session") == key[1]))
    rows = mine.select(RANK, ITEM_ID, SCORE).iter_rows()
    return tuple(Listed(rank, item, titles.get(item), score) for rank, item, score in rows)


def _recent(warehouse: Warehouse, users: Sequence[str], versions: dict[str, int | str]) -> dict[str, list[str]]:
    """The last items of each user up to the night, the latest first."""
    index = scan_rows(warehouse, USER_INDEX, version_of(versions, USER_INDEX)).filter(pl.col(ID).is_in(users))
    ids = dict(collected(index.select(IDX, ID)).iter_rows())
    events = scan_rows(warehouse, INTERACTIONS, version_of(versions, INTERACTIONS))
    # One row a user and item, so that the memory does not grow with the events.
    last = events.filter(pl.col(USER_IDX).is_in(list(ids))).group_by(USER_IDX, ITEM_IDX).agg(pl.col(TS).max())
    rows = collected(last).sort([TS, ITEM_IDX], descending=[True, False]).group_by(USER_IDX, maintain_order=True)
    latest = rows.head(RECENT)
    items = scan_rows(warehouse, ITEM_INDEX, version_of(versions, ITEM_INDEX))
    names = dict(collected(items.filter(pl.col(IDX).is_in(latest[ITEM_IDX].to_list())).select(IDX, ID)).iter_rows())
    found: dict[str, list[str]] = {}
    for user, item, _ in latest.select(USER_IDX, ITEM_IDX, TS).iter_rows():
        found.setdefault(ids[user], []).append(names[item])
    return found


def _titles(warehouse: Warehouse, item_ids: Sequence[str], column: str) -> dict[str, str]:
    if not exists(warehouse, ITEMS_TABLE):
        return {}
    items = scan_rows(warehouse, ITEMS_TABLE)
    if column not in items.collect_schema().names():
        return {}
    wanted = items.filter(pl.col(ID).is_in(item_ids) & pl.col(column).is_not_null())
    return dict(collected(wanted.select(ID, pl.col(column).cast(pl.String))).iter_rows())
