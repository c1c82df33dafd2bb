"""The steps of a look at a log, and what it prints."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from sparkrec.errors import UserError
from sparkrec.look import proposal
from sparkrec.look.events import LEFT_OUT, as_events
from sparkrec.look.facts import Facts, facts_of
from sparkrec.look.joins import Log, with_joins
from sparkrec.look.page import page
from sparkrec.look.roles import Roles, by_name, column_facts, opened, plain_name, roles_of
from sparkrec.look.rows import reader_of, renamed
from sparkrec.look.sample import FILE, Kind, kinds_of
from sparkrec.look.seen import Seen, names_of
from sparkrec.look.shipped import fitting
from sparkrec.settings.config import conf_dir
from sparkrec.settings.format_files import format_of, load_format
from sparkrec.settings.formats import AttributeFile, LogFormat
from sparkrec.storage.files import join, resolve

if TYPE_CHECKING:
    import polars as pl

MOST_REFUSED = 0.5  # of the rows, or the format that was found is none
HEADER = "# Written by sparkrec look. See docs/formats.md for what else a format can say.\n"


def look(log: str, out_dir: str, out: TextIO) -> tuple[LogFormat, Path, str]:
    """Looks at a log, writes ``format.yaml`` and ``night.yaml``, and prints what it found.

    Args:
        log: File or folder of the raw logs.
        out_dir: Folder for the two files; made where it is not there.
        out: Where to print; the last line is the command of a first night.

    Returns:
        The format, the night's configuration file, and the night.

    Raises:
        UserError: Nothing is there that looks like a log of events, or the folder cannot be written.
    """
    kinds, aside = kinds_of(log)
    if not kinds:
        raise UserError("no file that a night could read", where=log, fix="; ".join(aside)[:500])
    folder = Path(out_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        seen = _see(kinds, aside, folder)
        night = _write_night(seen, log, folder)
    except OSError as error:
        raise UserError("folder cannot be written", where=out_dir, fix=str(error.strerror)) from error
    run_date = proposal.run_date(seen.facts).isoformat()
    for line in page(seen):
        print(line, file=out)
    print(f"\nwrote {folder / 'format.yaml'} and {night}", file=out)
    print(f"sparkrec nightly --conf {shlex.quote(str(night))} --run-date {run_date}", file=out)
    return seen.fmt, night, run_date


def _see(kinds: list[Kind], aside: list[str], folder: Path) -> Seen:
    import polars as pl

    looked = [with_joins(kind, kinds) for kind in kinds]
    roles = [log.roles for log in looked]
    fits = [fitting(kind, roles_of(kind), kinds) for kind in kinds]
    told = [{"item", "ts"} <= found.columns.keys() and _who(found) for found in roles]
    sure = [fit or (tells and "item" not in found.guessed) for fit, tells, found in zip(fits, told, roles, strict=True)]
    at = next((i for i, some in enumerate((*sure, *told)) if some), None)
    if at is None:
        raise UserError(f"no column that looks like {_missing(roles)}", where=_said(kinds), fix=_why(kinds, roles))
    at %= len(kinds)
    log, target = looked[at], folder / "format.yaml"
    if fits[at]:
        name = fits[at][0].fmt.name
        text = (conf_dir() / "formats" / f"{name}.yaml").read_text(encoding="utf-8")
        target.write_text(f"# The shipped format {name}.\n{text}", encoding="utf-8")
        fmt = load_format(str(target))
        parts = [(one, fit.rows) for one, some in zip(kinds, fits, strict=True) for fit in some if fit.fmt.name == name]
        items, users = (_declared(beside, fmt, kinds) for beside in (fmt.items_file, fmt.users_file))
    else:
        users = None
        declared, rows, items = _made(log, [one for one in kinds if one is not log.own])
        fmt, parts = format_of(declared, target.name), [(log.own, rows)]
    judged = pl.concat([as_events(rows, fmt) for _, rows in parts])
    raw = pl.concat([_bare(rows) for _, rows in parts], how="diagonal")
    facts = facts_of(judged, raw, fmt.purchase_events)
    if not fits[at]:
        _check(facts, kinds, log.roles)
        equal = judged.height - judged.unique().height
        _write_format(declared | _by_facts(facts, bool(log.joins) and equal > facts.duplicates), target)
        fmt = load_format(str(target))
    mine = [one for one, _ in parts]
    joined = [one for one in kinds if any(reader_of(one, join.readers) for join in fmt.join)]
    used = [*mine, *joined, *(beside.kind for beside in (items, users) if beside)]
    for one, tells in zip(kinds, told, strict=True):
        if not any(one is other for other in used):
            why = "events of another kind; look at it by itself" if tells else "no events in it"
            aside.append(f"{names_of(one)}: {why}")
    shipped, joins = (fits[at][0].fmt.name, ()) if fits[at] else ("", log.joins)
    columns = list(dict.fromkeys(name for _, rows in parts for name in rows.columns))
    return Seen(tuple(mine), log.roles, fmt, shipped, columns, judged, facts, items, users, joins, tuple(aside))


def _made(log: Log, others: list[Kind]) -> tuple[dict[str, Any], pl.DataFrame, proposal.Beside | None]:
    """The declaration of a format made for a log, the rows as it reads them, and the items' attribute files."""
    kind, roles = log.kind, log.roles
    items = _items(kind, roles, [one for one in others if not any(one is join.kind for join in log.joins)])
    rows = opened(kind.rows, roles.explode) if roles.explode else kind.rows
    declared = proposal.format_of(log, others, items, rows)
    if items is not None:
        declared |= proposal.items_shown(items)
    return declared, rows, items


def _check(facts: Facts, kinds: list[Kind], roles: Roles) -> None:
    """Refuses a format by which most rows would be refused.

    Raises:
        UserError: It is such a one.
    """
    refused = {why: n for why, n in facts.refused.items() if why != LEFT_OUT}
    if sum(refused.values()) > MOST_REFUSED * facts.n:
        why, n = max(refused.items(), key=lambda one: one[1])
        found = ", ".join(f"{role}={column}" for role, column in roles.columns.items())
        fix = f"found {found}; fill the columns in, or write a format by hand: docs/formats.md"
        raise UserError(f"{n / facts.n:.0%} of the rows would be refused: {why}", where=_said(kinds), fix=fix)


def _by_facts(facts: Facts, lines: bool) -> dict[str, Any]:
    """What a format says that its events tell.

    Args:
        facts: Counts of them.
        lines: Whether lines of an order that are not alike make equal events.
    """
    pieces = lines or (facts.midnight > 0.95 and facts.duplicates > 0)
    return {"recommend_seen": facts.repeats >= 0.2} | ({"duplicates": "keep"} if pieces else {})


def _declared(file: AttributeFile | None, fmt: LogFormat, kinds: list[Kind]) -> proposal.Beside | None:
    """The files that a format takes for the attributes of items or users, where they are among the kinds."""
    for kind in kinds if file else ():
        assert file is not None  # else there is no kind to look at
        reader = reader_of(kind, file.readers)
        if reader is None or reader_of(kind, fmt.readers):
            continue
        there = renamed(kind, reader).columns
        found = next((name for name in file.id.columns if name in there), None)
        if found:
            return proposal.Beside(kind, found)
    return None


def _who(roles: Roles) -> bool:
    return bool({"user", "session", "basket"} & roles.columns.keys())


def _items(kind: Kind, roles: Roles, others: list[Kind]) -> proposal.Beside | None:
    """Files with a row for each of the log's items."""
    item = plain_name(roles.columns["item"].rpartition(".")[2])
    taken = (
        set(kind.rows[roles.columns["item"]].drop_nulls().unique())
        if roles.columns["item"] in kind.rows.columns
        else set()
    )
    for other in others:
        for name in other.columns:
            facts = column_facts(other.rows, name)
            alike = (
                plain_name(name) in (item, "id")
                or (not kind.dialect or not kind.dialect.header)
                or "item" in plain_name(name)
            )
            if facts.distinct > 0.98 * other.rows.height and facts.filled > 0.98 and alike and len(other.columns) > 1:
                known = set(other.rows[name].drop_nulls())
                if len(known & taken) >= 0.3 * min(len(known), len(taken)) or not taken:
                    return proposal.Beside(other, name)
    return None


def _bare(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.drop([name for name in rows.columns if name == FILE or name.endswith(".position")])


def _write_format(declared: dict[str, Any], target: Path) -> None:
    import yaml

    target.write_text(
        HEADER + yaml.safe_dump(declared, sort_keys=False, allow_unicode=True, width=120), encoding="utf-8"
    )


def _write_night(seen: Seen, log: str, folder: Path) -> Path:
    import yaml

    target = (folder / "night.yaml").resolve()
    beside = {"items_path": seen.items, "users_path": seen.users}
    paths = {name: _path(found.kind, log) for name, found in beside.items() if found is not None}
    path = log if "://" in log else str(Path(log).resolve())
    form, warehouse = str((folder / "format.yaml").resolve()), str((folder / "warehouse").resolve())
    logs = {"path": path, "format": form} | {name: where for name, where in paths.items() if where}
    night = proposal.night_of(logs, warehouse, seen.facts, seen.fmt, seen.whole)
    target.write_text(
        "# Written by sparkrec look.\n" + yaml.safe_dump(night, sort_keys=False, allow_unicode=True, width=120),
        encoding="utf-8",
    )
    return target


def _path(kind: Kind, log: str) -> str | None:
    """The one file of the log's folder that a kind is of; None where it is of several."""
    paths = {file.path for file in kind.files}
    if len(paths) != 1:
        return None
    path = paths.pop()
    return join(log, path.removeprefix(resolve(log)[1]).lstrip("/")) if "://" in log else str(Path(path).resolve())


def _said(kinds: list[Kind]) -> str:
    return "; ".join(f"{names_of(kind)}: {', '.join(kind.columns[:12])}" for kind in kinds[:3])


def _missing(roles: list[Roles]) -> str:
    """What the kind of files lacks in which most was found."""
    found = max(roles, key=lambda one: ("item" in one.columns, _who(one), len(one.columns)))
    lacks = {"a time": "ts" in found.columns, "an item": "item" in found.columns, "who took it": _who(found)}
    wanted = [what for what, there in lacks.items() if not there]
    return " and ".join(part for part in (", ".join(wanted[:-1]), wanted[-1]) if part)


def _why(kinds: list[Kind], roles: list[Roles]) -> str:
    kind, best = max(zip(kinds, roles, strict=True), key=lambda pair: len(pair[1].columns))
    numbers = [name for name in kind.columns if column_facts(kind.rows.head(100), name).number > 0.95]
    if len(numbers) > 30 and len(numbers) > len(kind.columns) / 2:
        return "a row of many numbers is a matrix: write a line for each of its cells, with who, what and when"
    said = ", ".join(f"{role}={column}" for role, column in best.columns.items()) or "nothing"
    more = [name for name in kind.columns if "ts" in by_name(name) and "ts" not in best.columns]
    odd = "".join(
        f"; {name} has {', '.join(v[:20] for v in column_facts(kind.rows.head(100), name).values[:3])}: no time"
        for name in more[:2]
    )
    whole = {"user", "item"} <= best.columns.keys() and "ts" not in best.columns and not odd
    rest = "nothing can be learnt of events without a time" if whole else "write a format by hand: docs/formats.md"
    return f"found {said}{odd}; {rest}"
