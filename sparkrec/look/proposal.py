"""A format and a night for a log, as the YAML that says them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sparkrec.look.columns import share
from sparkrec.look.facts import Facts, last_whole_day
from sparkrec.look.roles import FEATURES, TITLES, Column, Roles, bought, column_facts, plain_name
from sparkrec.models import MODELS
from sparkrec.models.model import Lists

if TYPE_CHECKING:
    import polars as pl

    from sparkrec.look.joins import Log
    from sparkrec.look.sample import Kind
    from sparkrec.look.together import Recalls
    from sparkrec.settings.formats import LogFormat

NULLS = ("NULL", "null", "\\N", "NA", "nan", "NaN", "None")
MOST_ATTRIBUTES = 8
HOLDOUT_DAYS = (1, 2, 3, 7, 14, 30, 60, 90, 180, 365)


@dataclass(frozen=True)
class Beside:
    """A kind of files with attributes of the items (or users), and the column of their ids."""

    kind: Kind
    id: str


def format_of(log: Log, others: Sequence[Kind], items: Beside | None, rows: pl.DataFrame) -> dict[str, Any]:
    """The declaration of a format.

    Args:
        log: The files of the log, their columns' roles, and what they are joined with.
        others: The other kinds of files beside them, which the globs must not name.
        items: Attribute files of the items.
        rows: The sample's rows, exploded.
    """
    kind, roles = log.kind, log.roles
    chosen = roles.columns
    facts = {name: column_facts(rows, name, kind.type_of(name)) for name in rows.columns if not name.startswith("_")}
    fmt: dict[str, Any] = {"readers": [reader_of(kind, others)]}
    for join in log.joins:
        reader = reader_of(join.kind, [kind, *(other for other in others if other is not join.kind)])
        keys = {"key": join.key} | ({"their_key": join.their_key} if join.their_key != join.key else {})
        fmt.setdefault("join", []).append({"readers": [reader], **keys})
    for role in ("user", "item"):
        if role in chosen:
            fmt[role] = _id(facts[chosen[role]], rows, required=role == "item")
    fmt["ts"] = {"columns": chosen["ts"], "unit": roles.unit}
    if roles.plus:
        fmt["ts"]["plus"] = [{"columns": name, "unit": unit} for name, unit in roles.plus]
    for role in ("value", "quantity", "price", "text"):
        if role in chosen:
            fmt[role] = {"columns": chosen[role], "required": facts[chosen[role]].filled > 0.999 and role != "text"}
    for role in ("session", "basket"):
        if role in chosen:
            fmt[role] = _id(facts[chosen[role]], rows, required=False)
    if roles.decimal != ".":
        fmt["decimal"], fmt["thousands"] = roles.decimal, "."
    fmt["missing_user"] = "keep" if {"session", "basket"} & chosen.keys() or "user" not in chosen else "quarantine"
    fmt["nulls"] = ["", *_nulls(rows, chosen.values())]
    fmt |= _event_types(roles, facts, rows)
    if roles.explode:
        step = {"column": roles.explode.column, "kind": roles.explode.kind}
        step |= {"separator": roles.explode.separator} if roles.explode.kind == "text" else {}
        fmt["explode"] = step | ({"suffix": roles.explode.suffix} if roles.explode.suffix else {})
        fmt["order"] = f"{roles.explode.column}.position"
    fmt |= _attributes(rows, chosen, facts, roles, items)
    if items is not None:
        fmt["items_file"] = _items_file(items, others=[kind, *(o for o in others if o is not items.kind)])
    by = {"sessions": {"by": "session_id" if "session" in chosen else "gap"},
          "baskets": {"by": "basket_id" if "basket" in chosen else "window"}}  # fmt: skip
    fmt["defaults"] = {"prepare": by}
    return fmt


def reader_of(kind: Kind, others: Sequence[Kind]) -> dict[str, Any]:
    """The declaration of a reader of a kind of files."""
    reader: dict[str, Any] = {"kind": kind.reader, "files": globs(kind, others)}
    if kind.dialect is not None:
        dialect = kind.dialect
        reader |= {"separator": dialect.separator} if dialect.separator != "," else {}
        reader |= {} if dialect.header else {"header": False, "columns": list(dialect.names)}
        reader |= {} if dialect.quote == '"' else {"quote": dialect.quote}
        reader |= {"comment": dialect.comment} if dialect.comment else {}
        if dialect.record_lines > 1:
            reader |= {"multi_line": True, "max_record_lines": max(5, 2 * dialect.record_lines)}
    if kind.encoding != "utf-8" and kind.reader in ("csv", "jsonl", "python"):
        reader["encoding"] = kind.encoding
    return reader


def globs(kind: Kind, others: Sequence[Kind]) -> list[str]:
    """Globs that name the kind's files and no other's; new days of the same making among them."""
    bases = sorted({file.base for file in kind.files})
    strange = {file.base for other in others for file in other.files}
    endings = {base.rpartition(".")[2] for base in bases if "." in base}
    by_ending = [f"*.{ending}" for ending in sorted(endings)]
    by_shape = sorted({re.sub(r"\d+([-_.]?\d+)*", "*", _literal(base)) for base in bases})
    for some in (by_ending, by_shape):
        covers = bool(some) and all(any(fnmatchcase(base, glob) for glob in some) for base in bases)
        if covers and len(some) <= 5 and not any(fnmatchcase(base, glob) for glob in some for base in strange):
            return some
    return [_literal(base) for base in bases]


def night_of(logs: dict[str, str], warehouse: str, facts: Facts, fmt: LogFormat, whole: bool) -> dict[str, Any]:
    """The configuration of a night of the log.

    Args:
        logs: Its section ``logs``.
        warehouse: The folder of the tables.
        facts: What is in the log.
        fmt: Its format.
        whole: Whether all of it was read.
    """
    return {
        "logs": logs, "warehouse": {"path": warehouse}, "models": models_for(facts, fmt, whole),
        "evaluation": {"holdout_days": float(holdout_days(facts))},
    }  # fmt: skip


def models_for(facts: Facts, fmt: LogFormat, whole: bool) -> list[str]:
    """The models that make sense on a log, of those that a first night begins with.

    What somebody rated within a day is no basket, and where times are days and no session has an id, no session either.
    Where what stood together says less of the next item than what is popular, there is nothing for them to learn; a
    sample has too few pairs to tell.
    """
    tells = {Lists.SESSIONS: _tells(facts.session_recalls, whole), Lists.ITEMS: _tells(facts.basket_recalls, whole)}
    whom, is_sold = set(), fmt.basket is not None or bool(bought(fmt.purchase_events))
    has_clock = facts.midnight < 0.95
    if facts.users > 1 and facts.per_user * (1 - facts.repeats) >= 1.5:
        whom.add(Lists.USERS)
    if tells[Lists.SESSIONS] and facts.session_length >= 1.5 and (has_clock or fmt.session is not None):
        whom.add(Lists.SESSIONS)
    if tells[Lists.ITEMS] and facts.multi_baskets >= 0.1:
        whom |= ({Lists.ITEMS} if has_clock or is_sold else set()) | ({Lists.BASKETS} if is_sold else set())
    return [name for name, model in MODELS.items() if model.first_night and model.lists in whom]


def _tells(recalls: Recalls | None, whole: bool) -> bool:
    return recalls is None or not whole or recalls.together >= recalls.popular


def run_date(facts: Facts) -> date:
    """The night that the log is good for: its last whole day."""
    return last_whole_day(facts.days) or date.today()


def holdout_days(facts: Facts) -> int:
    """Days to hold out: a week, or as many as hold a fiftieth of the events, but a third of the span at most."""
    last = run_date(facts)
    span = (last - facts.first).days + 1 if facts.first else 1
    total = sum(facts.days.values())
    wished = 7 if span >= 21 else 1
    for days in (d for d in HOLDOUT_DAYS if d >= wished):
        held = sum(n for day, n in facts.days.items() if last - timedelta(days=days) < day <= last)
        if held * 50 >= total or days * 3 > span:
            return max(1, min(days, span // 3))
    return HOLDOUT_DAYS[-1]


def _literal(base: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", base)


def _id(column: Column, rows: pl.DataFrame, required: bool) -> dict[str, Any]:
    steps = ["trim"]
    if any(re.fullmatch(r"-?\d+\.0+|-?\d(\.\d+)?[eE]\+?\d+", value) for value in column.values):
        steps.append("integer")
    if column.number < 0.5 and column.distinct > 1:
        folded = rows[column.name].str.strip_chars().str.to_uppercase().n_unique()
        if folded < 0.99 * rows[column.name].str.strip_chars().n_unique():
            steps.append("upper")
    found: dict[str, Any] = {"columns": column.name, "normalize": steps}
    return found if required else found | {"required": False}


def _nulls(rows: pl.DataFrame, columns: Any) -> list[str]:
    used = [name for name in columns if name in rows.columns]
    return [text for text in NULLS if any((rows[name] == text).any() for name in used)]


def _event_types(roles: Roles, facts: dict[str, Column], rows: pl.DataFrame) -> dict[str, Any]:
    chosen = roles.columns
    fmt: dict[str, Any] = {}
    if roles.explode and roles.explode.suffix:
        rule = {"type": "click", "column": f"{roles.explode.column}.suffix", "equals": "1"}
        fmt["event_type"] = {"default": "impression", "rules": [rule]}
        weights = {"impression": 0.0, "click": 1.0}
        fmt["impression_events"] = ["impression"]
    elif roles.types:
        weights = dict(roles.types)
        positive = {name: weight for name, weight in weights.items() if weight > 0} or weights
        default = min(positive, key=lambda name: positive[name])  # of rows that say none: the least that it may be
        fmt["event_type"] = {"default": default, "columns": chosen["event_type"]}
        shown = [name for name in weights if re.search("impression|shown|exposure", name, re.IGNORECASE)]
        fmt |= {"impression_events": shown} if shown else {}
        fmt["other_events"] = "leave_out"
    else:
        is_bought = {"basket", "quantity", "price"} & chosen.keys()
        is_rated = "value" in chosen and re.search(
            "rat|star|score|overall|note|bewert", plain_name(chosen["value"]) + "rat" * (chosen["value"][:1] == "c")
        )
        name = "purchase" if is_bought else "review" if "text" in chosen else "rating" if is_rated else "click"
        weights = {name: 1.0}
        fmt["event_type"] = {"default": name}
        if "quantity" in chosen and facts[chosen["quantity"]].low < 0:
            fmt["event_type"]["rules"] = [{"type": "cancellation", "column": chosen["quantity"], "below": 0.0}]
            weights["cancellation"] = 0.0
    fmt["event_weights"] = weights
    taken = [name for name, weight in weights.items() if weight > 0]
    purchases = bought(taken) or (taken if len(taken) == 1 and taken[0] in ("purchase", "review", "rating") else [])
    fmt["purchase_events"], fmt["session_events"] = list(purchases), list(taken)
    return fmt


def _attributes(
    rows: pl.DataFrame, chosen: dict[str, str], facts: dict[str, Column], roles: Roles, items: Beside | None
) -> dict[str, Any]:
    """Columns that say the same of an item (or a user) wherever it occurs."""
    import polars as pl

    fmt: dict[str, Any] = {}
    used = {*chosen.values(), *(name for name, _ in roles.plus)}
    free = [c for c in facts.values() if c.name not in used and c.filled > 0.05 and 0 < c.length <= 300 and not c.unit]
    for role in ("item", "user"):
        if role not in chosen:
            continue
        found = []
        for column in free:
            if column.distinct < 2 or column.distinct > 0.9 * max(10, rows.height) or column.name in found:
                continue
            pairs = rows.select(key=pl.col(chosen[role]), value=pl.col(column.name)).drop_nulls()
            said = (
                pairs.group_by("key")
                .agg(pl.col("value").n_unique().alias("n"), pl.len().alias("rows"))
                .filter(pl.col("rows") > 1)
            )
            if said.height >= 5 and share(said["n"] == 1) > 0.95:
                found.append(column.name)
        free = [c for c in free if c.name not in found]
        if found:
            fmt[f"{role}_attributes"] = [
                {"name": name, "columns": column} for name, column in _names(found[:MOST_ATTRIBUTES]).items()
            ]
    if "item_attributes" in fmt and items is None:
        names = [a["name"] for a in fmt["item_attributes"]]
        fmt |= _shown(names, {a["name"]: facts[a["columns"]] for a in fmt["item_attributes"]})
    return fmt


def _shown(names: Sequence[str], facts: dict[str, Column]) -> dict[str, Any]:
    """The title, and the attributes that make features: few values, by the names that catalogs give them."""
    title = next((name for wanted in TITLES for name in names if plain_name(name) == wanted), None)
    features = [n for n in names if plain_name(n) in FEATURES and n != title]
    found: dict[str, Any] = {"item_features": [_feature(n, facts[n]) for n in features[:4]]} if features else {}
    return found | ({"title": title} if title else {})


def _feature(name: str, column: Column) -> dict[str, Any]:
    for separator in ("|", ";", ","):
        if sum(separator in value for value in column.values) > len(column.values) / 3:
            return {"name": name, "kind": "multi", "separator": separator}
    return {"name": name}


def _items_file(items: Beside, others: Sequence[Kind]) -> dict[str, Any]:
    kind = items.kind
    columns = [name for name in kind.columns if name != items.id]
    facts = {name: column_facts(kind.rows.head(5000), name) for name in columns}
    kept = [n for n in columns if facts[n].filled > 0.05 and facts[n].length < 2000][:MOST_ATTRIBUTES]
    return {
        "readers": [reader_of(kind, others)],
        "id": {"columns": items.id},
        "attributes": [{"name": name, "columns": column} for name, column in _names(kept).items()],
    }


def items_shown(items: Beside) -> dict[str, Any]:
    """Title and features from an attribute file."""
    kept = _names([name for name in items.kind.columns if name != items.id])
    facts = {name: column_facts(items.kind.rows.head(5000), column) for name, column in kept.items()}
    return _shown(list(kept), facts)


def _names(columns: Sequence[str]) -> dict[str, str]:
    """A name of letters and digits for each column, each once."""
    found: dict[str, str] = {}
    for column in columns:
        name = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_").lower() or "attribute"
        name = name if name[0].isalpha() else f"a_{name}"
        while name in found or name in ("id", "updated_at"):
            name += "_"
        found[name] = column
    return found
