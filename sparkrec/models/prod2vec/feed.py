"""From a snapshot of sequences to the pairs of each step, on every rank its own."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from sparkrec.errors import NothingToTrain
from sparkrec.models.prod2vec.pairs import Sequences, Walk, walk
from sparkrec.models.prod2vec.sequences import ITEM, SEQUENCE
from sparkrec.models.two_tower.batches import Plan
from sparkrec.ranks.comm import Comm
from sparkrec.ranks.feed import check_total, read_files
from sparkrec.ranks.snapshot import Manifest

STEPS = 100  # of an epoch, at least, where steps have
SMALL_STEP = 256  # pairs or more
_CHUNK_PAIRS = 250_000  # of all ranks


def read_walks(manifest: Manifest, comm: Comm, keep: np.ndarray, window: int, seed: int, epoch: int) -> dict[int, Walk]:
    """One epoch's rows of this rank's files, held against the manifest, as walks by number of the file.

    Args:
        manifest: Of a snapshot of ``sequences.snapshot_rows``.
        comm: The ranks.
        keep: float64 [n_items], share of each item's events that the sub-sampling leaves.
        window: Contexts on either side, at most.
        seed: Of the model.
        epoch: From 1.

    Raises:
        InvariantError: The rows read are not the snapshot's.
    """
    found = read_files(manifest, comm.rank, comm.size, [SEQUENCE, ITEM])
    check_total(manifest, sum(len(columns[ITEM]) for columns in found.values()), comm)
    walks = {}
    for number, columns in found.items():
        sequences = Sequences.of(columns[SEQUENCE], columns[ITEM], manifest.files[number].groups)
        walks[number] = walk(sequences, keep, window, (seed, epoch, number))
    return walks


def plan_pairs(walks: dict[int, Walk], manifest: Manifest, comm: Comm, batch_size: int) -> Plan:
    """How the pairs of all ranks' files fall into steps of ``batch_size`` or fewer.

    A few large steps an epoch would leave the vectors where they began: an epoch takes at least ``STEPS`` steps, as
    long as they have ``SMALL_STEP`` pairs.

    Raises:
        UserError: There are none.
    """
    mine = torch.zeros(len(manifest.files), dtype=torch.int64)
    for number, source in walks.items():
        mine[number] = source.n_pairs
    everyone = comm.allreduce_sum(mine).tolist()
    if not sum(everyone):
        raise nothing_to_learn(manifest)
    return Plan.of(everyone, min(batch_size, max(SMALL_STEP, sum(everyone) // STEPS)))


def chunks_of_steps(plan: Plan) -> Iterator[range]:
    """The steps of an epoch, some at a time, for what is made and told at once."""
    at_once = max(1, _CHUNK_PAIRS * plan.steps // sum(plan.examples))
    for first in range(0, plan.steps, at_once):
        yield range(first, min(first + at_once, plan.steps))


def pairs_of_steps(walks: dict[int, Walk], plan: Plan, steps: range) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This rank's pairs of each step, a slice of each of its files: items of the centres and contexts, int64 each."""
    pieces = []
    for number, source in walks.items():
        bounds = [plan.slice(number, step).start for step in steps] + [plan.slice(number, steps[-1]).stop]
        cuts = np.array(bounds[1:-1], dtype=np.int64) - bounds[0]
        pieces.append([np.split(side, cuts) for side in source.pairs(slice(bounds[0], bounds[-1]))])
    for k in range(len(steps)):
        item, context = (np.concatenate([piece[side][k] for piece in pieces]) for side in range(2))
        yield item.astype(np.int64), context.astype(np.int64)


def nothing_to_learn(manifest: Manifest) -> NothingToTrain:
    """No sequence has two items."""
    fix = "longer sequences (prepare.baskets, prepare.sessions), or less sub-sampling"
    return NothingToTrain("no pair of items to train on", where=manifest.path, fix=fix)
