"""Power cuts: the writes of a warehouse's tables end at a given one of them."""

from itertools import count

from sparkrec.warehouse import direct, store

WRITES = (
    *((store, name) for name in ("append", "upsert", "overwrite", "replace_night", "delete_where", "delete_matching")),
    *((direct, name) for name in ("make", "append", "upsert", "replace_night", "delete")),
)


class PowerCutError(Exception):
    pass


def cut_before(patch, write):
    """Lets so many writes pass, and none after them; that a table is made is a write of its own.

    Args:
        patch: pytest's monkeypatch.
        write: Number of the write that is the first not to happen, from 0.
    """
    passed = count()

    def broken(do):
        def instead(*args, **kwargs):
            if next(passed) >= write:
                raise PowerCutError
            return do(*args, **kwargs)

        return instead

    for module, name in WRITES:
        patch.setattr(module, name, broken(getattr(module, name)))
