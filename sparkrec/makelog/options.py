"""What log to make."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

from sparkrec.errors import UserError

MAX_IDS = 2**31 - 1  # ids are int32


@dataclass(frozen=True)
class Style:
    """How people behave in a kind of log, and what it may hold.

    Attributes:
        mean_length: Mean events of a session; lengths are geometric.
        max_length: Longest session.
        mean_gap_s: Mean seconds between the events of a session; 0: all at once.
        distinct: Whether an item occurs only once in a session.
        cancelled: Share of the events that cancel an earlier one.
        anonymous: Share of sessions without a user, unless asked for otherwise; None: every event needs one.
        file_types: How its files can be written, the usual one first.
    """

    mean_length: float
    max_length: int
    mean_gap_s: float
    distinct: bool
    cancelled: float
    anonymous: float | None
    file_types: tuple[str, ...]


STYLES = {
    "reviews": Style(2.0, 10, 0.0, True, 0.0, None, ("json",)),
    "invoices": Style(12.0, 60, 0.0, True, 0.017, 0.2, ("csv",)),
    "sessions": Style(8.0, 60, 150.0, False, 0.0, 0.1, ("parquet", "csv")),
    "ratings": Style(4.0, 20, 40.0, True, 0.0, None, ("dat",)),
}


@dataclass(frozen=True)
class LogOptions:
    """The log to make. The same options give the same bytes.

    Attributes:
        format: reviews, invoices, sessions or ratings.
        events: Number of valid, distinct events.
        users: Number of users; None: one for each 40 events.
        items: Number of items; None: one for each 100 events, at most a million.
        days: Number of days.
        start: The first day.
        seed: Seed of all random numbers.
        gzip: Whether to compress the files of the log.
        bad_rows: Unreadable rows to add, as a share of the events.
        duplicates: Exact copies of events to add, as a share of the events.
        anonymous: Share of sessions without a user; None: as usual in the format.
        session_id: sessions: whether the log has session ids.
        file_type: sessions: parquet or csv; None: the usual one of the format.
        one_file: Whether the whole log is one file, as public ratings are; else each day is one.
    """

    format: str
    events: int
    users: int | None = None
    items: int | None = None
    days: int = 30
    start: date = date(2024, 1, 1)
    seed: int = 1
    gzip: bool = False
    bad_rows: float = 0.0
    duplicates: float = 0.0
    anonymous: float | None = None
    session_id: bool = True
    file_type: str | None = None
    one_file: bool = False

    def __post_init__(self) -> None:
        """Raises UserError where the options contradict each other."""
        if self.format not in STYLES:
            raise UserError("unknown log format", where=self.format, fix=f"one of {', '.join(STYLES)}")
        self._check_numbers()
        if self.anonymous is not None and self.style.anonymous is None:
            raise UserError("every event needs a user", where=f"--format {self.format}", fix="leave out --anonymous")
        if self.file_type is not None and self.file_type not in self.style.file_types:
            fix = f"one of {', '.join(self.style.file_types)}"
            raise UserError("file type does not go with the format", where=self.file_type, fix=fix)
        if self.gzip and self.written_as == "parquet":
            raise UserError("Parquet files are compressed already", where="--gzip", fix="or add --file-type csv")
        if not self.session_id and self.format != "sessions":
            raise UserError("only sessions have session ids", where="--no-session-id", fix="leave it out")

    def _check_numbers(self) -> None:
        bounds: list[tuple[str, float, float, float]] = [
            ("events", self.events, 1, 10**12),
            ("users", self.n_users, 1, MAX_IDS),
            ("items", self.n_items, 4, MAX_IDS),
            ("days", self.days, 1, 100_000),
            ("seed", self.seed, 0, 2**63),
            ("bad-rows", self.bad_rows, 0, 1),
            ("duplicates", self.duplicates, 0, 1),
            ("anonymous", self.anonymous_share, 0, 1),
        ]
        for name, value, low, high in bounds:
            if not low <= value <= high:
                raise UserError("number out of bounds", where=f"--{name} {value}", fix=f"from {low} to {high}")
        try:
            self.start + timedelta(days=self.days)
        except OverflowError as error:
            raise UserError("the log would end after the year 9999", where=f"--days {self.days}") from error

    @property
    def style(self) -> Style:
        """How people behave in this format."""
        return STYLES[self.format]

    @property
    def n_users(self) -> int:
        """Number of users."""
        return max(20, self.events // 40) if self.users is None else self.users

    @property
    def n_items(self) -> int:
        """Number of items."""
        return min(max(30, self.events // 100), 1_000_000) if self.items is None else self.items

    @property
    def anonymous_share(self) -> float:
        """Share of sessions without a user."""
        return (self.style.anonymous or 0.0) if self.anonymous is None else self.anonymous

    @property
    def written_as(self) -> str:
        """File type."""
        return self.file_type or self.style.file_types[0]
