"""Where a path leads: one spelling of each place for Spark, Python and the readers.

| written as | Spark | Python and ranks | readers (delta-rs) |
|---|---|---|---|
| ``x``, ``/x`` | ``/abs/x`` | ``/abs/x`` | ``/abs/x`` |
| ``file:/x``, ``file:///x`` | ``file:///x`` | ``/x`` | ``/x`` |
| ``dbfs:/x``; ``/dbfs/x`` where Databricks runs it | ``dbfs:/x`` | ``/dbfs/x`` | ``/dbfs/x`` |
| ``s3://b/x``, ``s3a://b/x`` | ``s3a://b/x`` | by obstore | ``s3://b/x`` |
| ``gs://b/x`` | ``gs://b/x`` | by obstore | ``gs://b/x`` |
| ``abfss://c@a.dfs.core.windows.net/x`` | the same | by obstore | the same |
| ``hdfs://n:8020/x`` | the same | by hdfs-native | the same |
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote

from sparkrec.errors import UserError

LOCAL, HDFS, S3, GCS, AZURE = "local", "hdfs", "s3", "gcs", "azure"
OBJECT_STORES = (S3, GCS, AZURE)
_STORES = {"s3": S3, "s3a": S3, "gs": GCS, "abfss": AZURE, "hdfs": HDFS}
_SPELLINGS = {"s3": "s3a"}  # Hadoop's
_FIXES = {
    "s3n": "write s3a://…",
    "wasb": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "wasbs": "write abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/…",
    "abfs": "write abfss://… (over TLS)",
    "viewfs": "write the hdfs://… that it stands for",
}


@dataclass(frozen=True)
class Place:
    """A place on some storage.

    Attributes:
        store: ``local``, ``hdfs``, ``s3``, ``gcs`` or ``azure``.
        uri: As Spark takes it, without a slash at the end.
        root: The bucket, container or namenode: scheme and authority; empty for local ones.
        inside: The path in it: absolute for local ones and HDFS, a key without a slash in front for object stores.
    """

    store: str
    uri: str
    root: str
    inside: str

    @property
    def reader_uri(self) -> str:
        """As delta-rs takes it."""
        if self.store == LOCAL:
            return self.inside
        return self.uri.replace("s3a://", "s3://", 1)


def place_of(path: str) -> Place:
    """The place that a path leads to. A relative one counts from the current folder.

    Raises:
        UserError: A scheme that is not supported, or an address without what it needs.
    """
    scheme, rest = _split(path)
    if scheme == "":
        return _local(os.path.abspath(path))
    if scheme == "file":
        if re.match("//[^/]", rest):
            raise UserError("a file of another host", where=path, fix="write file:///…")
        absolute = os.path.abspath("/" + unquote(rest).lstrip("/"))
        return Place(LOCAL, f"file://{absolute}", "", absolute)
    if scheme == "dbfs":
        inside = "/" + rest.strip("/")
        return Place(LOCAL, f"dbfs:{inside}", "", f"/dbfs{inside}".rstrip("/"))
    if scheme not in _STORES:
        fix = _FIXES.get(scheme, "one of a plain path, file:, s3a://, gs://, abfss://, hdfs://, dbfs:")
        raise UserError(f"storage {scheme}: is not supported", where=path, fix=fix)
    found = re.fullmatch("//([^/]*)(.*)", rest, re.DOTALL)
    if found is None or not found[1]:
        what = "namenode" if scheme == "hdfs" else "bucket or container"
        raise UserError(f"the address names no {what}", where=path, fix=f"write {scheme}://NAME/…")
    store, scheme = _STORES[scheme], _SPELLINGS.get(scheme, scheme)
    parts = [part for part in found[2].split("/") if part not in ("", ".")]
    if ".." in parts:
        raise UserError("a path with .. on a storage", where=path, fix="write where it leads to")
    root, inside = f"{scheme}://{found[1]}", "/".join(parts)
    return Place(store, f"{root}/{inside}".rstrip("/"), root, f"/{inside}" if store == HDFS else inside)


def _local(absolute: str) -> Place:
    if absolute.startswith("/dbfs/") and os.environ.get("DATABRICKS_RUNTIME_VERSION"):
        return Place(LOCAL, f"dbfs:{absolute.removeprefix('/dbfs')}", "", absolute)
    return Place(LOCAL, absolute, "", absolute)


def _split(path: str) -> tuple[str, str]:
    """The scheme in small letters, empty where there is none, and what follows its colon."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", path)
    return (found[1].lower(), path[found.end() :]) if found else ("", path)
