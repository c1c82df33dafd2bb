"""Names, columns and schemas of every table: the one place that knows them.

The comments and the checks are written into the Delta tables. ``key`` lists the columns that identify a row;
``partition`` the partition columns, ``order`` what the rows of a file lie in the order of. Tables whose columns depend
on the log format (``items``, ``users``, ``item_features``, ``user_features``) declare only their fixed columns and are
*open*.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparkrec.models import MODELS
from sparkrec.models.model import Lists

USER_ID, ITEM_ID, ID, IDX = "user_id", "item_id", "id", "idx"
USER_IDX, ITEM_IDX = "user_idx", "item_idx"
QUERY_IDX, SIMILAR_ITEM_ID, SIMILAR_USER_ID = "query_idx", "similar_item_id", "similar_user_id"
EVENT_TYPE, TS, VALUE, QUANTITY, TEXT = "event_type", "ts", "value", "quantity", "text"
PRICE, LOG_SESSION_ID, BASKET_ID, SOURCE, EVENT_DATE = "price", "log_session_id", "basket_id", "source", "event_date"
EVENT_ORDER, EVENT_ID = "event_order", "event_id"
EVENT_TYPE_IDX, EVENT_TYPES = "event_type_idx", "event_types"
SESSION_ID, START_TS, END_TS, START_DATE = "session_id", "start_ts", "end_ts", "start_date"
ITEMS, EVENT_TS = "items", "event_ts"
RATING, CONFIDENCE, N_EVENTS, LAST_TS = "rating", "confidence", "n_events", "last_ts"
NAME, VECTOR, FEATURE = "name", "vector", "feature"
TYPE_FEATURE = "event.type"  # in FEATURE_INDEX, beside item.<name> and user.<name>
ANTECEDENT, CONSEQUENT, SUPPORT, LIFT, LEVERAGE = "antecedent", "consequent", "support", "lift", "leverage"
PLACE, STAMP, MADE_BY = "place", "stamp", "made_by"
GROUP_ID, DISTANCE, N_BASKETS = "group_id", "distance", "n_baskets"
RUN_DATE, RANK, SCORE, MODEL_VERSION, KEY_TYPE = "run_date", "rank", "score", "model_version", "key_type"
PROTOCOL, LOW, HIGH = "protocol", "low", "high"
# In METRICS, parts of the hold-out of users.
COLD_USERS, FREQUENT_USERS = "holdout_cold_users", "holdout_frequent_users"
COLD_ITEMS, FREQUENT_ITEMS = "holdout_cold_items", "holdout_frequent_items"
PARTS = (COLD_USERS, FREQUENT_USERS, COLD_ITEMS, FREQUENT_ITEMS)


@dataclass(frozen=True)
class Column:
    """A column: its name, Spark SQL type, whether it may be null, its meaning, and what its values must fulfil.

    ``check`` is a condition of Spark SQL; Delta refuses a write with a row that does not fulfil it. A null passes where
    the column may be null.
    """

    name: str
    type: str
    comment: str
    nullable: bool = False
    check: str = ""


@dataclass(frozen=True)
class Table:
    """A Delta table of the warehouse."""

    name: str
    comment: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()
    partition: tuple[str, ...] = ()
    open: bool = False
    order: tuple[str, ...] = ()

    @property
    def column_names(self) -> list[str]:
        """Names in order."""
        return [c.name for c in self.columns]

    def column(self, name: str) -> Column:
        """The column of a name."""
        return next(c for c in self.columns if c.name == name)

    @property
    def ddl(self) -> str:
        """The schema as a Spark DDL string."""
        return ", ".join(f"{c.name} {c.type}{'' if c.nullable else ' NOT NULL'}" for c in self.columns)

    @property
    def checks(self) -> dict[str, str]:
        """Delta's CHECK constraints: name → condition."""
        return {
            f"check_{c.name}": f"{c.name} is null or ({c.check})" if c.nullable else c.check
            for c in self.columns
            if c.check
        }


def _finite(name: str, kind: str) -> str:
    """Neither infinite nor NaN, which Spark orders after infinity."""
    return f"abs({name}) < {kind}('Infinity')"


# What events keep of the log's columns, in both their tables.
_MEASURED = (
    Column(
        VALUE, "double", "rating, play time, … as the format declares", nullable=True, check=_finite(VALUE, "double")
    ),
    Column(QUANTITY, "double", "number of units", nullable=True, check=_finite(QUANTITY, "double")),
)
_PRICE = Column(PRICE, "double", "price of one unit", nullable=True, check=_finite(PRICE, "double"))
_OWN_IDS = (
    Column(LOG_SESSION_ID, "string", "session id of the log itself", nullable=True),
    Column(BASKET_ID, "string", "basket, invoice or order id of the log itself", nullable=True),
)

_ORDER = Column(EVENT_ORDER, "bigint", "what decides between events of one time, the smaller first", nullable=True)

EVENTS = Table(
    "events",
    "Every valid event of the raw logs, once.",
    (
        Column(USER_ID, "string", "who; null for an anonymous event", nullable=True),
        Column(ITEM_ID, "string", "what"),
        Column(EVENT_TYPE, "string", "an event type of the log format"),
        Column(TS, "timestamp", "when, UTC"),
        *_MEASURED,
        _PRICE,
        Column(TEXT, "string", "review text", nullable=True),
        *_OWN_IDS,
        Column(
            SOURCE,
            "string",
            "file that the row came from, relative to logs.path, or logs.table with version or partition",
        ),
        Column(EVENT_DATE, "date", "UTC date of ts"),
        _ORDER,
        Column(EVENT_ID, "string", "id of the event, where the log has one", nullable=True),
    ),
    order=(TS,),  # so that a file holds a range of days, and Delta's statistics leave out the files of others
)
QUARANTINE = Table(
    "quarantine",
    "Rows that could not be taken in, with the reason.",
    (
        Column("raw", "string", "the row as it was written", nullable=True),
        Column("reason", "string", "why it was refused"),
        Column("source_file", "string", "as source of events"),
        Column("ingested_at", "timestamp", "when it was refused, UTC"),
    ),
)
FILES = Table(
    "files",
    "Log files taken in.",
    (
        Column(SOURCE, "string", "path relative to logs.path; of logs.table the version read up to, or a partition"),
        Column("size", "bigint", "bytes", check="size >= 0"),
        Column("modified_at", "timestamp", "modification time, UTC"),
        Column("sha256", "string", "hash of the bytes, of a table its commit's; empty while the file is read again"),
        Column("run_id", "string", "run that took it in"),
        Column("ingested_at", "timestamp", "when, UTC"),
        Column("format_hash", "string", "of the log format and the bounds that judged its rows", nullable=True),
        Column("rows_refused", "bigint", "its rows in quarantine", nullable=True),
        Column("shares_with", "array<string>", "files that have some of its events too, and keep them", nullable=True),
    ),
    key=(SOURCE,),
)
ITEMS_TABLE = Table(
    "items",
    "Item attributes; further columns as the log format declares.",
    (Column(ID, "string", "item id"),),
    key=(ID,),
    open=True,
)
USERS_TABLE = Table(
    "users",
    "User attributes; further columns as the log format declares.",
    (Column(ID, "string", "user id"),),
    key=(ID,),
    open=True,
)
USER_INDEX = Table(
    "user_index",
    "Dense, append-only numbers of the users.",
    (Column(ID, "string", "user id"), Column(IDX, "int", "0, 1, 2, …; never changes", check="idx >= 0")),
    key=(ID,),
)
ITEM_INDEX = Table(
    "item_index",
    "Dense, append-only numbers of the items.",
    (Column(ID, "string", "item id"), Column(IDX, "int", "0, 1, 2, …; never changes", check="idx >= 0")),
    key=(ID,),
)
FEATURE_INDEX = Table(
    "feature_index",
    "Dense, append-only codes of categorical feature values.",
    (
        Column(FEATURE, "string", f"item.<name> or user.<name>, or {TYPE_FEATURE}"),
        Column(VALUE, "string", "the value"),
        Column(IDX, "int", "1, 2, … within the feature; 0 stands for unknown", check="idx >= 1"),
    ),
    key=(FEATURE, VALUE),
)
INTERACTIONS = Table(
    "interactions",
    "Events up to the night, with the dense numbers in place of the ids: what all later stages read.",
    (
        Column(USER_IDX, "int", "user; null for an anonymous event", nullable=True, check="user_idx >= 0"),
        Column(ITEM_IDX, "int", "item", check="item_idx >= 0"),
        Column(EVENT_TYPE, "string", "an event type of the log format"),
        Column(TS, "timestamp", "when, UTC"),
        *_MEASURED,
        _PRICE,
        *_OWN_IDS,
        _ORDER,
        Column(
            EVENT_TYPE_IDX,
            "int",
            "code of the event type, of those that make sessions where there are several",
            nullable=True,
            check="event_type_idx >= 1",
        ),
    ),
)
SESSIONS = Table(
    "sessions",
    "Sessions: events of a user in order, as of the night that wrote them.",
    (
        Column(SESSION_ID, "string", "unique"),
        Column(USER_IDX, "int", "user; null for an anonymous session", nullable=True, check="user_idx >= 0"),
        Column(START_TS, "timestamp", "first event, UTC"),
        Column(END_TS, "timestamp", "last event, UTC", check="end_ts >= start_ts"),
        Column(ITEMS, "array<int>", "item_idx in order of time", check="size(items) >= 1"),
        Column(EVENT_TS, "array<timestamp>", "time of each event, UTC", check="size(event_ts) = size(items)"),
        Column(START_DATE, "date", "date of start_ts, in UTC or logs.timezone"),
        Column(
            EVENT_TYPES,
            "array<int>",
            "code of each event's type; null where sessions are of one type of events",
            nullable=True,
            check="size(event_types) = size(items)",
        ),
    ),
    key=(SESSION_ID,),
)
COPURCHASE = Table(
    "copurchase",
    "Baskets: items bought together.",
    (
        Column(BASKET_ID, "string", "unique"),
        Column(USER_IDX, "int", "user; null for an anonymous basket", nullable=True, check="user_idx >= 0"),
        Column(TS, "timestamp", "first purchase, UTC"),
        Column(ITEMS, "array<int>", "distinct item_idx in purchase order", check="size(items) >= 1"),
        Column(END_TS, "timestamp", "last purchase, UTC", check="end_ts >= ts"),
    ),
    key=(BASKET_ID,),
)
USER_ITEM = Table(
    "user_item",
    "The user-item matrix, explicit and implicit.",
    (
        Column(USER_IDX, "int", "user", check="user_idx >= 0"),
        Column(ITEM_IDX, "int", "item", check="item_idx >= 0"),
        Column(
            RATING,
            "float",
            "last or mean rating; null where the log has none",
            nullable=True,
            check=_finite(RATING, "float"),
        ),
        Column(
            CONFIDENCE,
            "float",
            "sum of event weights, halved with each half-life of age",
            check="confidence >= 0 and confidence < float('Infinity')",
        ),
        Column(N_EVENTS, "int", "events with a positive weight", check="n_events >= 1"),
        Column(LAST_TS, "timestamp", "the last of them, UTC"),
    ),
    key=(USER_IDX, ITEM_IDX),
)
ITEM_FEATURES = Table(
    "item_features",
    "Codes of the items' categorical features; one array<int> column for each feature.",
    (Column(ITEM_IDX, "int", "item", check="item_idx >= 0"),),
    key=(ITEM_IDX,),
    open=True,
)
USER_FEATURES = Table(
    "user_features",
    "Codes of the users' categorical features; one array<int> column for each feature.",
    (Column(USER_IDX, "int", "user", check="user_idx >= 0"),),
    key=(USER_IDX,),
    open=True,
)
ITEM_VECTORS = Table(
    "item_vectors",
    "Vectors of the items: from their texts, and ready ones of the items table.",
    (
        Column(ITEM_IDX, "int", "item", check="item_idx >= 0"),
        Column(NAME, "string", "text_tfidf, text_word2vec, or the column of items"),
        Column(VECTOR, "array<float>", "of length 1; of one width for each name", check="size(vector) >= 1"),
    ),
    key=(ITEM_IDX, NAME),
)
IMAGE_VECTORS = Table(
    "image_vectors",
    "Vectors of images, kept so that an image which is the same still is not read again. Of no night.",
    (
        Column(PLACE, "string", "path or address"),
        Column(STAMP, "string", "size and time of change, or what the server tells it by", check="stamp <> ''"),
        Column(MADE_BY, "string", "hash of the network, its weights, and how the image is looked at"),
        Column(VECTOR, "array<float>", "of length 1", check="size(vector) >= 1"),
    ),
    key=(PLACE,),
)
# What a night's preparation writes whole, as of the night.
PREPARED = (INTERACTIONS, SESSIONS, COPURCHASE, USER_ITEM, ITEM_FEATURES, USER_FEATURES, ITEM_VECTORS)

# What a metric is, in both tables that hold some.
_VALUE_OF_METRIC = (
    Column(
        "metric",
        "string",
        "recall, ndcg, map, mrr, hit_rate, …_per_session (of sessions' means), coverage, gini, rmse, mae, rmse_warm, "
        "mae_warm, rmse_cold, mae_cold, users_without_list, pairs_without_list, cases_without_list; not_judged: the "
        "pairs held out, which are too few",
    ),
    Column("k", "int", "length of the list; null for rmse and mae", nullable=True, check="k >= 1"),
    Column(VALUE, "double", "value of the metric"),
    Column("n", "bigint", "users or events judged", check="n >= 0"),
    Column(
        "split",
        "string",
        "holdout_users (lists without what a user had taken), its parts holdout_cold_users, holdout_frequent_users, "
        "holdout_cold_items and holdout_frequent_items, holdout_users_with_taken (lists that may hold it), "
        "holdout_sessions and holdout_sessions_with_taken, holdout_baskets and holdout_baskets_with_taken likewise, "
        "or holdout_ratings",
    ),
)
METRICS = Table(
    "metrics",
    "Hold-out metrics of models and baselines.",
    (
        Column(RUN_DATE, "date", "night"),
        Column("model", "string", "a model, popularity, popularity_recent, rating_mean or rating_biases"),
        Column(MODEL_VERSION, "string", "version of the model judged"),
        *_VALUE_OF_METRIC,
        Column(PROTOCOL, "string", "JSON: how it was judged; nights are compared where it is the same", nullable=True),
        Column(LOW, "double", "of the 95 % confidence interval, by bootstrap over users; of the gate's metric", True),
        Column(HIGH, "double", "likewise", nullable=True),
    ),
    key=(RUN_DATE, "model", "metric", "k", "split"),
    partition=(RUN_DATE,),
)
RATING_CALIBRATION = Table(
    "rating_calibration",
    "Predicted ratings beside the true ones of the hold-out, by equal parts of the scale.",
    (
        Column(RUN_DATE, "date", "night"),
        Column("model", "string", "a model that predicts ratings, rating_mean or rating_biases"),
        Column(MODEL_VERSION, "string", "version of the model judged"),
        Column("place", "int", "of the predictions on the scale, in equal parts from 0", check="place >= 0"),
        Column("predicted", "double", "mean of the predictions there"),
        Column(RATING, "double", "mean of the true ratings of these pairs"),
        Column("n", "bigint", "how many they are", check="n >= 1"),
    ),
    key=(RUN_DATE, "model", "place"),
    partition=(RUN_DATE,),
)
RUNS = Table(
    "runs",
    "One row for each stage that ended. Append-only.",
    (
        Column("run_id", "string", "the night's attempt"),
        Column(RUN_DATE, "date", "night"),
        Column("stage", "string", "stage"),
        Column("status", "string", "done, skipped, held_back (a model was not published), refused, failed"),
        Column("started_at", "timestamp", "UTC"),
        Column("ended_at", "timestamp", "UTC"),
        Column("inputs", "string", "JSON: table to version"),
        Column("outputs", "string", "JSON: table to version"),
        Column("config_hash", "string", "of the settings that the stage depends on"),
        Column("config", "string", "JSON: the whole resolved configuration"),
        Column("code_version", "string", "of the package"),
        Column("rows_in", "bigint", "rows read", nullable=True, check="rows_in >= 0"),
        Column("rows_out", "bigint", "rows written", nullable=True, check="rows_out >= 0"),
        Column("rows_quarantined", "bigint", "invalid rows", nullable=True, check="rows_quarantined >= 0"),
        Column(
            "rows_duplicate",
            "bigint",
            "rows that are an event which another row is",
            nullable=True,
            check="rows_duplicate >= 0",
        ),
        Column("message", "string", "what there is to say", nullable=True),
        Column("jobs", "int", "Spark jobs that it started, its row here not counted", nullable=True),
        Column("seconds", "double", "how long it took", nullable=True),
    ),
)


CURRENT = Table(
    "current",
    "The night whose lists are current, for each model.",
    (
        Column("model", "string", "a model"),
        Column(RUN_DATE, "date", "the night: read the rows of topk_<model> with this run_date"),
        Column(MODEL_VERSION, "string", "version of the model"),
        Column("since", "timestamp", "when it became current, UTC"),
        Column("pinned", "boolean", "whether it stays current until it is released", nullable=True),
        Column(
            "passed_over",
            "array<date>",
            "nights with lists that are not to be current: rolled back, or published beside a pinned one",
            nullable=True,
        ),
    ),
    key=("model",),
)


SEARCHES = Table(
    "searches",
    "What searches of settings reached on validation nights. Append-only.",
    (
        Column("searched_at", "timestamp", "when the search ended, UTC"),
        Column(RUN_DATE, "date", "the night that was searched for"),
        Column("validation_date", "date", "the validation night: it ends before the night's hold-out begins"),
        Column("model", "string", "a model, popularity or popularity_recent"),
        Column("settings", "string", "JSON: key to value; of popularity those that change what is held out"),
        *_VALUE_OF_METRIC,
        Column("seconds", "double", "of training and judging; null for popularity", nullable=True),
    ),
)

TUNED = Table(
    "tuned",
    "Settings that tune has found on validation nights, and whether they are used. Append-only.",
    (
        Column("tuned_at", "timestamp", "when, UTC"),
        Column(RUN_DATE, "date", "the night that tuned; the nights from it on use what was taken over"),
        Column("validation_date", "date", "the validation night: it ends before the night's hold-out begins"),
        Column("model", "string", "the model"),
        Column("settings", "string", "JSON: key to value, of all settings that are tried"),
        Column("metric", "string", "what decided, e.g. recall@20; rmse of predicted ratings, by what trains them"),
        Column("value", "double", "what the settings reached"),
        Column("value_before", "double", "what the settings in use before reached"),
        Column(
            "low",
            "double",
            "of the difference's 95 % confidence interval, by bootstrap over users; of rmse by how much lower the mean "
            "squared error is",
        ),
        Column("high", "double", "likewise"),
        Column("taken", "boolean", "whether the nights use them: the interval lies above 0"),
        Column("n_tried", "int", "settings that were tried in full"),
        Column("n_tried_short", "int", "settings that were tried with less training only"),
        Column("seconds", "double", "of all tries"),
    ),
)


RULES = Table(
    "rules",
    "Association rules of the baskets: who buys the antecedent buys the consequent too.",
    (
        Column(RUN_DATE, "date", "night"),
        Column(ANTECEDENT, "array<string>", "item ids, in order", check="size(antecedent) >= 1"),
        Column(CONSEQUENT, "string", "item id"),
        Column(SUPPORT, "double", "share of the baskets with all of them", check="support > 0 AND support <= 1"),
        Column("confidence", "double", "share of the antecedent's baskets", check="confidence > 0 AND confidence <= 1"),
        Column(LIFT, "double", "confidence / share of the baskets with the consequent", check="lift > 0"),
        Column(LEVERAGE, "double", "support - support if both were independent"),
        Column(N_BASKETS, "bigint", "baskets with all of them", check="n_baskets >= 1"),
        Column(MODEL_VERSION, "string", "version of the model"),
    ),
    key=(RUN_DATE, ANTECEDENT, CONSEQUENT),
    partition=(RUN_DATE,),
)


USER_GROUPS = Table(
    "user_groups",
    "Groups of users who are alike, a row for each user.",
    (
        Column(RUN_DATE, "date", "night"),
        Column(USER_ID, "string", "user"),
        Column(GROUP_ID, "int", "number of the group, the largest is 0", check="group_id >= 0"),
        Column(DISTANCE, "float", "from the group's centre", check="distance >= 0"),
    ),
    key=(RUN_DATE, USER_ID),
    partition=(RUN_DATE,),
)
USER_GROUP_PROFILES = Table(
    "user_group_profiles",
    "What is known of each group of users.",
    (
        Column(RUN_DATE, "date", "night"),
        Column(GROUP_ID, "int", "number of the group", check="group_id >= 0"),
        Column("size", "bigint", "users", check="size >= 1"),
        Column("share", "double", "of all users that have a group", check="share > 0 AND share <= 1"),
        Column("recency_days", "double", "median days since the last event"),
        Column("frequency", "double", "median number of events"),
        Column(VALUE, "double", "median value of what they took"),
        Column("top", "array<string>", "values of an attribute that are more frequent than among all users"),
        Column("summary", "string", "all of it in words"),
    ),
    key=(RUN_DATE, GROUP_ID),
    partition=(RUN_DATE,),
)


_COSINE = "score BETWEEN -1.001 AND 1.001"


def topk_table(model: str) -> Table:
    """The published lists of a model for users, sessions or baskets: ``topk_<model>``."""
    what = MODELS[model].lists.value.removesuffix("s")  # user, session, basket
    who = (
        (Column(USER_ID, "string", "user"),)
        if what == "user"
        else (
            Column(USER_ID, "string", f"user of the {what}, or {what}_id of an anonymous one"),
            Column(KEY_TYPE, "string", f"user or {what}"),
        )
    )
    columns = (
        Column(RUN_DATE, "date", "night"),
        *who,
        Column(RANK, "int", "1 is the best", check="rank >= 1"),
        Column(ITEM_ID, "string", "item"),
        Column(SCORE, "float", "comparable within a list and a source only", check=_finite(SCORE, "float")),
        Column(MODEL_VERSION, "string", "version of the model"),
        Column(SOURCE, "string", "what put the item there: model; group or popularity where the model has no more"),
    )
    key = (RUN_DATE, *(c.name for c in who), RANK)
    return Table(f"topk_{model}", f"Top-K lists of {model}.", columns, key=key, partition=(RUN_DATE,))


def similar_items_table(model: str) -> Table:
    """The published items beside items of a model: ``topk_<model>_items``."""
    return _similar_table(model, "item", ITEM_ID, SIMILAR_ITEM_ID)


def similar_users_table(model: str) -> Table:
    """The published users beside users of a model: ``topk_<model>_users``."""
    return _similar_table(model, "user", USER_ID, SIMILAR_USER_ID)


def _similar_table(model: str, what: str, key: str, similar: str) -> Table:
    score, check = {
        "cosine": ("cosine of their vectors", _COSINE),
        "partners": ("cosine of their vectors, or how probable it is that they are bought together", _COSINE),
        "together": ("how often they stand together: a count, a cosine or a lift", _finite(SCORE, "float")),
        "takers": ("similarity of those who took them", _finite(SCORE, "float")),
    }[MODELS[model].measure]
    columns = (
        Column(RUN_DATE, "date", "night"),
        Column(key, "string", what),
        Column(RANK, "int", "1 is the nearest", check="rank >= 1"),
        Column(similar, "string", f"another {what} that is like it"),
        Column(SCORE, "float", score, check=check),
        Column(MODEL_VERSION, "string", "version of the model"),
    )
    return Table(
        f"topk_{model}_{what}s",
        f"Similar {what}s by {model}.",
        columns,
        key=(RUN_DATE, key, RANK),
        partition=(RUN_DATE,),
    )


def lists_table(model: str) -> Table:
    """The table that a model's publication fills: of an item model what lies beside the items."""
    return similar_items_table(model) if MODELS[model].lists is Lists.ITEMS else topk_table(model)


def list_tables(model: str) -> tuple[Table, ...]:
    """All tables of a model's lists: its own, and what lies beside items and users."""
    similar = [make(model) for what, make in _SIMILAR.items() if what in MODELS[model].beside]
    return lists_table(model), *similar


_SIMILAR = {"items": similar_items_table, "users": similar_users_table}


TABLES: dict[str, Table] = {
    t.name: t
    for t in (
        EVENTS, QUARANTINE, FILES, ITEMS_TABLE, USERS_TABLE, USER_INDEX, ITEM_INDEX, FEATURE_INDEX, INTERACTIONS,
        SESSIONS, COPURCHASE, USER_ITEM, ITEM_FEATURES, USER_FEATURES, ITEM_VECTORS, IMAGE_VECTORS, METRICS,
        RATING_CALIBRATION, RUNS, CURRENT, SEARCHES, TUNED,
        RULES, USER_GROUPS, USER_GROUP_PROFILES, *(table for model in MODELS for table in list_tables(model)),
    )
}  # fmt: skip
