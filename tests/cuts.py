"""Power cuts: the writes of a warehouse's tables end at a given one of them."""

from itertools import count

from sparkrec.warehouse import store

WRITES = ("create", "append", "upsert", "overwrite", "replace_night", "delete_where", "delete_matching")


class PowerCutError(Exception):
    pass


def cut_before(patch, write):
    """Lets so many writes pass, and none after them; what writes nothing does not count.

    Args:
        patch: pytest's monkeypatch.
        write: Number of the write that is the first not to happen, from 0.
    """
    passed = count()

    def broken(name, do):
        def instead(*args, **kwargs):
            if name == "create" and store.exists(*args):
                return False
            if next(passed) >= write:
                raise PowerCutError
            return do(*args, **kwargs)

        return instead

    for name in WRITES:
        patch.setattr(store, name, broken(name, getattr(store, name)))
