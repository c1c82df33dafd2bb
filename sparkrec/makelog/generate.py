"""Makes a whole log: day by day, window by window, in memory that does not grow with the events."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from sparkrec.errors import UserError
from sparkrec.log import progress
from sparkrec.makelog.options import LogOptions
from sparkrec.makelog.render import Columns, Renderer, build_renderer
from sparkrec.makelog.simulate import DAY_S, Events, concat, no_events, time_of_day, window_sessions
from sparkrec.makelog.world import Ints, World, build_world
from sparkrec.makelog.write import ParquetFile, TextFile, write_attributes

WINDOW_EVENTS = 200_000


@dataclass(frozen=True)
class LogSummary:
    """What was made.

    Attributes:
        log_path: Folder of the files: what ``logs.path`` takes.
        items_path: The attribute file, what ``logs.items_path`` takes; None where the log itself holds attributes.
        files: Number of files.
        events: Valid, distinct events.
        bad_rows: Unreadable rows.
        duplicates: Exact copies of events.
    """

    log_path: Path
    items_path: Path | None
    files: int
    events: int
    bad_rows: int
    duplicates: int


@dataclass(frozen=True)
class Window:
    """A stretch of a day that is made at once: its day, its part of the day's activity, and its rows."""

    day: int
    part: tuple[float, float]
    events: int
    bad_rows: int
    duplicates: int


def make_log(options: LogOptions, out: Path) -> LogSummary:
    """Makes a log in ``out/log`` and its item attributes in ``out/items``.

    Args:
        options: What to make.
        out: A folder; it is created. It must not hold a log yet.

    Returns:
        What was made.

    Raises:
        UserError: ``out`` holds a log, or cannot be written.
    """
    log_folder, items_folder = _new_folders(out)
    world = build_world(options.n_users, options.n_items, options.days, options.seed)
    renderer = build_renderer(world, options)
    try:
        log_folder.mkdir(parents=True, exist_ok=True)
        items_path = write_attributes(items_folder, renderer.attributes) if renderer.attributes else None
        windows = plan_windows(options)
        n_files = _write_files(world, renderer, options, log_folder, windows)
    except OSError as error:
        raise UserError("the log cannot be written", where=str(out), fix=error.strerror or str(error)) from error
    rows = [(w.events, w.bad_rows, w.duplicates) for w in windows]
    events, bad_rows, duplicates = (sum(column) for column in zip(*rows, strict=True))
    return LogSummary(log_folder, items_path, n_files, events, bad_rows, duplicates)


def plan_windows(options: LogOptions) -> list[Window]:
    """Divides the events over days and windows; the numbers add up to exactly what was asked for."""
    counts = _spread(options.events, _day_weights(options.days))
    windows: list[Window] = []
    done = 0
    for day, count in enumerate(counts.tolist()):
        n = math.ceil(count / WINDOW_EVENTS)
        for i, size in enumerate(_spread(count, np.ones(n)).tolist() if n else []):
            bad, copies = (
                math.floor(share * (done + size)) - math.floor(share * done)
                for share in (options.bad_rows, options.duplicates)
            )
            windows.append(Window(day, (i / n, (i + 1) / n), size, bad, copies))
            done += size
    return windows


def _new_folders(out: Path) -> tuple[Path, Path]:
    log_folder, items_folder = out / "log", out / "items"
    for folder in (log_folder, items_folder):
        try:
            if folder.exists() and any(folder.iterdir()):
                raise UserError("there is a log already", where=str(folder), fix="remove it, or choose another --out")
        except OSError as error:
            raise UserError("folder cannot be read", where=str(folder), fix=error.strerror or str(error)) from error
    return log_folder, items_folder


def _day_weights(days: int) -> NDArray[np.float64]:
    """Busier at the week's end, and growing by half from the first day to the last."""
    day = np.arange(days)
    return (1 + 0.25 * np.isin(day % 7, (4, 5))) * (1 + 0.5 * day / max(1, days - 1))


def _spread(total: int, weights: NDArray[np.float64]) -> Ints:
    """Whole numbers in proportion to the weights that add up to ``total``."""
    ends = np.floor(total * np.cumsum(weights) / weights.sum() + 1e-9).astype(np.int64)
    ends[-1] = total
    return np.diff(ends, prepend=0)


def _write_files(world: World, renderer: Renderer, options: LogOptions, folder: Path, windows: list[Window]) -> int:
    """Writes the windows to the files that they belong to; returns the number of files."""
    pieces = _pieces(world, renderer, options, windows)
    by_file: dict[str, list[Window]] = {}
    for window in windows:
        by_file.setdefault(_file_name(renderer, options, window.day), []).append(window)
    for name, of_file in by_file.items():
        if options.written_as == "parquet":
            with ParquetFile(folder / name, renderer.header.strip().split(",")) as table:
                for _ in of_file:
                    table.write(next(pieces)[0])
        else:
            with TextFile(folder / name, renderer.header, options.gzip) as text:
                for _ in of_file:
                    columns, cut = next(pieces)
                    text.write(columns, renderer.glue, cut, renderer.cut)
    return len(by_file)


def _file_name(renderer: Renderer, options: LogOptions, day: int) -> str:
    date = (options.start + timedelta(days=day)).isoformat()
    name = renderer.log_name if options.one_file else renderer.file_name.format(day=date)
    return name + (".gz" if options.gzip else "")


def _pieces(
    world: World, renderer: Renderer, options: LogOptions, windows: list[Window]
) -> Iterator[tuple[Columns, pa.Array | None]]:
    """The columns of each window, in order of time, with duplicates and bad rows among them."""
    carry, n_sessions = no_events(), 0
    rng, cum, day = np.random.default_rng(0), np.empty(0), -1
    for i, window in enumerate(progress(windows, total=len(windows), name="make-log")):
        if window.day != day:
            day = window.day
            rng, cum = np.random.default_rng([options.seed, 1, day]), world.popularity_cum(day)
        made = window_sessions(
            world,
            options.style,
            n_events=window.events,
            day=day,
            part=window.part,
            popularity_cum=cum,
            anonymous=options.anonymous_share,
            first_session=n_sessions,
            rng=rng,
        )
        n_sessions = int(made.session.max()) + 1
        # A session may run on into the next window, or past midnight into the next file.
        after = windows[i + 1] if i + 1 < len(windows) else None
        ready, carry = _split(concat([carry, made]), window, after)
        yield _render(ready, window, renderer, options, np.random.default_rng([options.seed, 2, i]))


def _split(events: Events, window: Window, after: Window | None) -> tuple[Events, Events]:
    """The events of a window's time in order of time, and those for the window after it.

    Where no window follows on the same or the next day, what runs past midnight is squeezed into this day.
    """
    midnight = (window.day + 1) * DAY_S
    if after is None or after.day > window.day + 1:
        events = replace(events, ts=np.minimum(events.ts, midnight - 1))
    same_day = after is not None and after.day == window.day
    end = window.day * DAY_S + int(time_of_day(np.array([window.part[1]]))[0]) if same_day else midnight
    before = events.ts < end
    ready = events.take(before)
    return ready.take(np.argsort(ready.ts, kind="stable")), events.take(~before)


def _render(
    events: Events, window: Window, renderer: Renderer, options: LogOptions, rng: np.random.Generator
) -> tuple[Columns, pa.Array | None]:
    n, n_bad, n_copies = len(events), window.bad_rows, window.duplicates
    columns = renderer.columns(events, window.day)
    if not n or not (n_bad or n_copies):
        return columns, None
    rows = np.concatenate([np.arange(n), rng.integers(0, n, n_copies + n_bad)])
    is_bad = np.arange(len(rows)) >= n + n_copies
    order = np.argsort(rows, kind="stable")  # a copy stands right behind its original
    columns = {name: column.take(pa.array(rows[order])) for name, column in columns.items()}
    return _damage(columns, is_bad[order], renderer, options, rng)


def _damage(
    columns: Columns, is_bad: NDArray[np.bool_], renderer: Renderer, options: LogOptions, rng: np.random.Generator
) -> tuple[Columns, pa.Array | None]:
    """Makes rows unreadable: a bad value in a column, or a line cut off."""
    can_cut = options.written_as != "parquet"
    kind = np.where(is_bad, rng.integers(0, len(renderer.bad) + can_cut, len(is_bad)), -1)
    for k, (name, value) in enumerate(renderer.bad):
        if (kind == k).any():
            columns = {**columns, name: pc.if_else(pa.array(kind == k), value, columns[name])}
    return columns, pa.array(kind == len(renderer.bad)) if can_cut else None
