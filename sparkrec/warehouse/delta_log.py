"""Which versions of a Delta table changed its rows, and which only took care of its files and properties."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Operations after which the table holds the same rows as before. Of all others it is not known.
CARE = frozenset({
    "OPTIMIZE", "VACUUM START", "VACUUM END", "ADD CONSTRAINT", "DROP CONSTRAINT", "SET TBLPROPERTIES",
})  # fmt: skip


@dataclass(frozen=True)
class Commits:
    """The commits that a table's log still lists.

    Attributes:
        versions: Their versions, ascending.
        oldest_ms: When the first of them was written, in milliseconds since 1970; None without any.
        info: What Delta says of a version (``commitInfo``); empty where its commit does not say it at once.
        checksum: What Delta notes beside a version's commit of the table as it is then; empty without such a note.
    """

    versions: tuple[int, ...]
    oldest_ms: int | None
    info: Callable[[int], dict[str, Any]]
    checksum: Callable[[int], dict[str, Any]] = lambda _: {}

    def operation(self, version: int) -> str:
        """What a version did; empty where that is not known."""
        return str(self.info(version).get("operation", ""))

    def last_change(self) -> int | None:
        """The version of the last change of rows; None without any commit.

        Where a table has only been cared for as long as its log goes back, the oldest version listed stands for it.
        """
        changes = (v for v in reversed(self.versions) if self.operation(v) not in CARE)
        return next(changes, self.versions[0] if self.versions else None)

    def same_rows(self, version: int) -> int:
        """The latest version with the rows of this one: its files are the last to be vacuumed."""
        latest = version
        for later in (v for v in self.versions if v > version):
            if self.operation(later) not in CARE:
                break
            latest = later
        return latest

    def spares(self, version: int, value: str) -> bool:
        """Whether all that came after a version kept to rows of other partitions than this value's.

        False where it cannot be told: a commit without a predicate, or one that the log lists no more.
        """
        later = range(version + 1, self.versions[-1] + 1) if self.versions else range(0)
        return set(later) <= set(self.versions) and all(self._elsewhere(v, value) for v in later)

    def _elsewhere(self, version: int, value: str) -> bool:
        info = self.info(version)
        predicate = str(info.get("operationParameters", {}).get("predicate", ""))
        return info.get("operation") in CARE or (bool(predicate) and value not in predicate)


def commits(spark: SparkSession, table_path: str) -> Commits:
    """The commits of the table in a folder, as the log lists them now; none where there is no table."""
    # By Delta's protocol a version is there when its commit file is; the newest is never cleaned away.
    jvm: Any = spark._jvm
    log, fs = _log(spark, table_path)
    listed = {str(status.getPath().getName()): status for status in (fs.listStatus(log) if fs.exists(log) else [])}
    names = sorted(name for name in listed if re.fullmatch(r"\d{20}\.json", name))
    oldest_ms = int(listed[names[0]].getModificationTime()) if names else None

    def info(version: int) -> dict[str, Any]:
        stream = fs.open(jvm.org.apache.hadoop.fs.Path(log, commit_name(version)))
        try:
            reader = jvm.java.io.BufferedReader(jvm.java.io.InputStreamReader(stream, "UTF-8"))
            return _info(str(reader.readLine()))
        finally:
            stream.close()

    def checksum(version: int) -> dict[str, Any]:
        name = f"{version:020d}.crc"
        if name not in listed:
            return {}
        stream = fs.open(jvm.org.apache.hadoop.fs.Path(log, name))
        try:
            return dict(json.loads(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")))
        except ValueError:  # cut short by a crash: Delta does without it too
            return {}
        finally:
            stream.close()

    return Commits(tuple(int(name[:20]) for name in names), oldest_ms, info, checksum)


@dataclass(frozen=True)
class DataChange:
    """What a commit did to a table's rows: compaction and settings did nothing.

    Attributes:
        added: The actions of the files that it added, each as its line of the commit.
        removes: Whether it removed rows, or rewrote some.
    """

    added: tuple[str, ...]
    removes: bool


def data_change(spark: SparkSession, table_path: str, version: int) -> DataChange:
    """What a version of the table in a folder did to its rows, by its commit file, which must be there."""
    jvm: Any = spark._jvm
    log, fs = _log(spark, table_path)
    stream = fs.open(jvm.org.apache.hadoop.fs.Path(log, commit_name(version)))
    try:
        lines = str(jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8")).splitlines()
    finally:
        stream.close()
    actions = [(line, json.loads(line)) for line in lines if line.startswith(('{"add"', '{"remove"'))]
    added = tuple(line for line, action in actions if action.get("add", {}).get("dataChange"))
    return DataChange(added, any(action.get("remove", {}).get("dataChange") for _, action in actions))


def commit_name(version: int) -> str:
    """The name of a version's commit file."""
    return f"{version:020d}.json"


def _log(spark: SparkSession, table_path: str) -> tuple[Any, Any]:
    """The folder of a table's log, and the file system that it is on."""
    jvm: Any = spark._jvm
    log = jvm.org.apache.hadoop.fs.Path(f"{table_path}/_delta_log")
    return log, log.getFileSystem(spark._jsc.hadoopConfiguration())  # type: ignore[attr-defined]


def _info(first_line: str) -> dict[str, Any]:
    """The ``commitInfo`` of a commit's first action, which is where Delta writes it."""
    try:
        return dict(json.loads(first_line)["commitInfo"])
    except (ValueError, KeyError, TypeError):
        return {}
