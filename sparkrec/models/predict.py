"""Ratings of the pairs that a reader asks for, predicted by a night's model, without Spark or Java."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sparkrec.errors import UserError
from sparkrec.evaluation.ratings import PREDICTED
from sparkrec.models import MODELS
from sparkrec.models.model import Lists
from sparkrec.models.program import program
from sparkrec.storage.files import first_line
from sparkrec.warehouse import reading
from sparkrec.warehouse.cards import part_path, read_card
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import ID, IDX, ITEM_ID, ITEM_INDEX, USER_ID, USER_INDEX, Table, topk_table

if TYPE_CHECKING:
    import polars as pl

KNOWN, DEVIATION = "known", "deviation"


def predict(warehouse: Warehouse, model: str, pairs: Path, *, run_date: str = reading.LATEST) -> pl.DataFrame:
    """The ratings that users are foreseen to give to items.

    Args:
        warehouse: Where the tables are.
        model: A model that predicts ratings.
        pairs: A CSV file of two columns, user and item, ids as in the log; a first row ``user,item`` (or
            ``user_id,item_id``) is a header.
        run_date: ``YYYY-MM-DD``, or ``latest``: the night whose lists are current.

    Returns:
        A row for each pair, in order: user_id, item_id, predicted, deviation (of the prediction, where the model
        knows it), and known: whether the night knows both.

    Raises:
        UserError: No such model, night or file; the model predicts no ratings; a row that is no pair.
    """
    import polars as pl

    able = [name for name, one in MODELS.items() if one.lists is Lists.USERS and program(name).pair_ratings is not None]
    reading.require_known("model that predicts ratings", model, able)
    asked = read_pairs(pairs)
    night = reading.current_nights(warehouse).get(model) if run_date == reading.LATEST else None
    table = topk_table(model)
    night = night or reading.night_in(reading.open_table(warehouse, table), table, run_date)
    card = read_card(warehouse, model, night)
    load = program(model).pair_ratings
    if load is None or not card.can_list:
        raise UserError(
            f"{model} of {night} was not trained", where=str(warehouse.path), fix="see its training's message"
        )
    path, deviations = part_path(warehouse, model, night, card.served_part), program(model).pair_deviations
    rates = {PREDICTED: load(path), DEVIATION: deviations(path) if deviations is not None else None}
    user, item = (
        _numbers(warehouse, index, asked[column]) for index, column in ((USER_INDEX, USER_ID), (ITEM_INDEX, ITEM_ID))
    )
    found = [
        pl.Series(name, np.asarray(rate(user, item), dtype=np.float32))
        for name, rate in rates.items()
        if rate is not None
    ]
    return asked.with_columns(*found, pl.Series(KNOWN, (user >= 0) & (item >= 0)))


def read_pairs(path: Path) -> pl.DataFrame:
    """The pairs of a CSV file: user_id, item_id, as they are written.

    Raises:
        UserError: There is no such file, or one of its rows is no pair.
    """
    import csv

    import polars as pl

    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [[field.strip() for field in row] for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError("pairs cannot be read", where=str(path), fix=first_line(error)) from error
    if rows and _is_header(rows[0]):
        rows = rows[1:]
    for number, row in enumerate(rows, 1):
        if len(row) != 2 or not all(row):
            fix = "write user,item: one pair a line"
            raise UserError("a row is no pair", where=f"{path}, pair {number}: {','.join(row)[:80]}", fix=fix)
    if not rows:
        raise UserError("no pairs", where=str(path), fix="write user,item: one pair a line")
    return pl.DataFrame(rows, schema={USER_ID: pl.String, ITEM_ID: pl.String}, orient="row")


def _is_header(row: Sequence[str]) -> bool:
    return [name.lower() for name in row] in (["user", "item"], [USER_ID, ITEM_ID])


def _numbers(warehouse: Warehouse, index: Table, ids: pl.Series) -> np.ndarray:
    """int64, the numbers of ids; -1 for one that is not known."""
    import polars as pl

    wanted = ids.unique().to_list()
    rows = reading.read_rows(reading.open_table(warehouse, index), index, [ID, IDX], pl.col(ID).is_in(wanted))
    numbers = dict(rows.iter_rows())
    return np.array([numbers.get(one, -1) for one in ids], dtype=np.int64)
