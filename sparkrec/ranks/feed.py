"""Reading a rank's share of a snapshot through Petastorm, held against the manifest."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sparkrec.errors import InvariantError
from sparkrec.ranks.snapshot import FILE_NO, Manifest
from sparkrec.storage import files

if TYPE_CHECKING:
    import torch

    from sparkrec.ranks.comm import Comm

Columns = dict[str, np.ndarray]


def read_files(manifest: Manifest, rank: int, size: int, columns: Sequence[str]) -> dict[int, Columns]:
    """One epoch of a rank: the rows of its files, in their order in the file.

    Args:
        manifest: Of the snapshot.
        rank: This rank; it reads the files with number ≡ rank (mod size).
        size: Number of ranks, which must divide the number of files.
        columns: Columns wanted.

    Returns:
        file number → column → array of the file's rows. Files without rows are there, with empty arrays.

    Raises:
        InvariantError: The rows of a file are not those of the manifest.
    """
    mine = manifest.files_of(rank, size)
    paths = [files.join(manifest.path, manifest.files[i].name) for i in mine if manifest.files[i].rows]
    found = _read_row_groups(paths, columns) if paths else {}
    empty = {c: np.zeros(0, dtype=np.int64) for c in columns}
    for i in mine:
        seen = len(next(iter(found[i].values()))) if i in found else 0
        if seen != manifest.files[i].rows:
            raise InvariantError(
                f"{manifest.path}: file {i} gave {seen} rows, the manifest says {manifest.files[i].rows}"
            )
    strangers = sorted(set(found) - set(mine))
    if strangers:
        raise InvariantError(f"{manifest.path}: rows of files {strangers} came to rank {rank} of {size}")
    return {i: found.get(i, empty) for i in mine}


def check_total(manifest: Manifest, rows_here: int, comm: Comm) -> int:
    """Sums the rows that the ranks have seen and holds them against the manifest.

    Raises:
        InvariantError: They differ.
    """
    import torch

    seen = int(comm.allreduce_sum(torch.tensor([rows_here], dtype=torch.int64))[0])
    if seen != manifest.rows:
        raise InvariantError(f"{manifest.path}: the ranks saw {seen} rows, the manifest says {manifest.rows}")
    return seen


def item_counts(manifest: Manifest, comm: Comm, n_items: int) -> torch.Tensor:
    """int64 [n_items], the rows of each ``item`` in the whole snapshot.

    Raises:
        InvariantError: An item is outside of the catalogue, or the ranks' rows are not the snapshot's.
    """
    return code_counts(manifest, comm, "item", n_items)


def code_counts(manifest: Manifest, comm: Comm, column: str, n: int) -> torch.Tensor:
    """int64 [n], the rows of each value 0 … n − 1 of a column in the whole snapshot.

    Raises:
        InvariantError: There is another value, or the ranks' rows are not the snapshot's.
    """
    import torch

    counts = np.zeros(n, dtype=np.int64)
    for columns in read_files(manifest, comm.rank, comm.size, [column]).values():
        codes = columns[column]
        if len(codes) and (codes.min() < 0 or codes.max() >= n):
            among = "catalogue of" if column == "item" else "codes below"
            raise InvariantError(f"{manifest.path}: an {column} is outside of the {among} {n}")
        counts += np.bincount(codes, minlength=n)
    summed = comm.allreduce_sum(torch.from_numpy(counts))
    if int(summed.sum()) != manifest.rows:
        raise InvariantError(f"{manifest.path}: {int(summed.sum())} events counted, expected {manifest.rows}")
    return summed


def _file_system(paths: Sequence[str]) -> tuple[Any, list[str]]:
    """A file system of these files alone, as Petastorm 0.12 takes it, and their addresses in it.

    Petastorm reads by pyarrow's file systems of old, which know no object store. This one gives out what
    ``storage.files`` reaches, under names of its own, so that no letter of a path can mean anything else.
    """
    from pyarrow.filesystem import FileSystem

    found = {f"/{n}.parquet": files.resolve(path) for n, path in enumerate(paths)}

    class SnapshotFiles(FileSystem):  # type: ignore[misc]
        def open(self, path: str, mode: str = "rb") -> Any:
            system, inside = found[path]
            return system.open_input_file(inside)

        def isfile(self, path: str) -> bool:
            return path in found

        def isdir(self, path: str) -> bool:
            return path not in found

        def exists(self, path: str) -> bool:
            return path in found

        def _isfilestore(self) -> bool:
            return True

    return SnapshotFiles(), [f"file://{name}" for name in found]


def _read_row_groups(paths: Sequence[str], columns: Sequence[str]) -> dict[int, Columns]:
    """File number → columns. One finite reader; each batch is one row group, which is one file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Petastorm uses what pyarrow calls old
        from petastorm import make_batch_reader

        wanted = [f"^{c}$" for c in (*columns, FILE_NO)]
        found: dict[int, Columns] = {}
        workers = min(4, len(paths))
        file_system, urls = _file_system(paths)
        with make_batch_reader(
            urls, schema_fields=wanted, num_epochs=1, shuffle_row_groups=False, reader_pool_type="thread",
            workers_count=workers, results_queue_size=workers, filesystem=file_system,
        ) as reader:  # fmt: skip
            for batch in reader:
                number = _file_of(getattr(batch, FILE_NO))
                if number in found:
                    raise InvariantError(f"snapshot file {number} has more than one row group")
                found[number] = {c: np.ascontiguousarray(getattr(batch, c)) for c in columns}
    return found


def _file_of(numbers: np.ndarray) -> int:
    if len(numbers) == 0 or (numbers != numbers[0]).any():
        raise InvariantError("a row group of the snapshot holds rows of several files")
    return int(numbers[0])
