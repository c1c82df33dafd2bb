"""Messages through shared memory, between real processes."""

import errno
import multiprocessing
import os
import signal
import tempfile
import time
from pathlib import Path

import pytest
import torch

from sparkrec.errors import InvariantError
from sparkrec.ranks import shared_memory
from sparkrec.ranks.shared_memory import RankLostError, SharedMemory, make_file

pytestmark = pytest.mark.skipif(not shared_memory.usable(), reason="this machine has no memory to share")

SLOT = 64  # bytes: 16 floats, so that most messages here go in parts


def run(size, what, timeout_s=30.0, slot_bytes=SLOT):
    """What ``what(memory)`` returns, or the text of what it raises, on each rank."""
    path = make_file(size, slot_bytes)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()

    def one(rank):
        torch.set_num_threads(1)
        memory = SharedMemory(path, rank, size, timeout_s, slot_bytes)
        try:
            queue.put((rank, what(memory)))
        except (InvariantError, RankLostError) as error:
            queue.put((rank, f"{type(error).__name__}: {error}"))
        memory.leave()

    processes = [context.Process(target=one, args=(rank,)) for rank in range(size)]
    for process in processes:
        process.start()
    try:
        found = dict(queue.get(timeout=60) for _ in processes)
    finally:
        os.unlink(path)
        for process in processes:
            process.kill()
            process.join()
    return [found[rank] for rank in range(size)]


def message(rank, n, dtype=torch.float32):
    return (torch.arange(n, dtype=torch.float64) * (rank + 1) + 0.1 * rank).to(dtype)


@pytest.mark.parametrize("size", [2, 3])
def test_sums_and_gathers_of_any_length_are_the_same_on_all_ranks(size):
    lengths = [0, 1, 15, 16, 17, 100]

    def many(memory):
        out = []
        for turn, n in enumerate(lengths * 20):
            if (turn + memory.rank) % 7 == 0:
                time.sleep(0.001)  # so that now one, now another rank is behind
            out.append(memory.sum(message(memory.rank + turn, n)).tolist())
            out.append(memory.gather(message(memory.rank + turn, n).reshape(n, 1)).shape)
        whole = message(memory.rank, 40, torch.int64).reshape(20, 2)
        return out, memory.sum(whole).tolist(), memory.gather(whole).tolist(), memory.sum(torch.tensor(2.0)).item()

    found = run(size, many)
    assert not any(isinstance(one, str) for one in found), found
    assert all(one == found[0] for one in found)  # to the last bit
    out, summed, gathered, single = found[0]
    for turn, n in enumerate(lengths * 20):
        expected = sum(message(rank + turn, n) for rank in range(size))
        assert out[2 * turn] == pytest.approx(expected.tolist())
        assert out[2 * turn + 1] == (size * n, 1)
    parts = [message(rank, 40, torch.int64).reshape(20, 2) for rank in range(size)]
    assert summed == sum(parts).tolist()
    assert gathered == torch.cat(parts).tolist()
    assert single == 2.0 * size


@pytest.mark.parametrize("slot_bytes", [SLOT, 4096])
def test_each_rank_gets_the_sum_of_the_rows_that_it_asks_for(slot_bytes):
    def some(memory):
        parts = [message(memory.rank, 24).reshape(8, 3), message(memory.rank, 5), torch.tensor([1.0 + memory.rank])]
        own = [slice(2 * memory.rank, 2 * memory.rank + 3), slice(memory.rank, memory.rank), slice(0, 1)]
        return [[part.tolist() for part in memory.sum_parts(parts, own)] for _ in range(20)]

    found = run(3, some, slot_bytes=slot_bytes)
    rows = sum(message(rank, 24) for rank in range(3)).reshape(8, 3)
    for rank, turns in enumerate(found):
        assert turns == [[pytest.approx(rows[2 * rank : 2 * rank + 3].numpy()), [], [6.0]]] * 20


def test_a_shared_tensor_is_rank_0s_and_what_one_writes_all_see():
    def shares(memory):
        tensor = memory.share(torch.full((3, 2), 5.0 + memory.rank))
        begin = tensor.tolist()
        memory.arrive()
        memory.settle()  # nobody writes before all have looked
        time.sleep(0.05 * memory.rank)
        tensor[memory.rank] += 10 * (1 + memory.rank)
        memory.arrive()  # a message settles, too
        memory.sum(torch.ones(1))
        return begin, tensor.tolist()

    for begin, end in run(3, shares):
        assert begin == [[5.0, 5.0]] * 3
        assert end == [[15.0, 15.0], [25.0, 25.0], [35.0, 35.0]]


@pytest.fixture
def full(monkeypatch):
    """A folder of shared memory, in which there is room for 1 MiB."""
    allocate = os.posix_fallocate

    def up_to_a_megabyte(handle, offset, n_bytes):
        if n_bytes > 1 << 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(handle, offset, n_bytes)

    with tempfile.TemporaryDirectory(dir=shared_memory.FOLDER) as folder:  # other tests use the one above it
        monkeypatch.setattr(shared_memory, "FOLDER", folder)
        monkeypatch.setattr(os, "posix_fallocate", up_to_a_megabyte)
        yield Path(folder)


def test_without_room_no_rank_shares_a_tensor(full):
    def shares(memory):
        return [memory.share(torch.zeros(n, dtype=torch.uint8)) is not None for n in (1 << 20, (1 << 20) + 1)]

    assert run(2, shares) == [[True, False]] * 2
    assert not list(full.iterdir())


def test_whoever_settles_waits_for_the_others_to_arrive():
    def waits(memory):
        memory.sum(torch.ones(1))
        if memory.rank:
            time.sleep(0.3)
        arrived = time.monotonic()
        memory.arrive()
        memory.settle()
        return arrived, time.monotonic()

    (_, first_settled), (second_arrived, _) = run(2, waits)
    assert first_settled >= second_arrived


def test_tensors_of_unequal_size_are_noticed_by_all():
    found = run(2, lambda memory: memory.sum(torch.zeros(3 + memory.rank)).tolist())
    assert found == ["InvariantError: ranks send tensors of unequal shapes: [12, 16] bytes"] * 2


def test_a_rank_that_left_or_was_killed_is_not_waited_for():
    def leaves(memory):
        return memory.sum(torch.ones(2)).tolist() if memory.rank else "left"

    assert run(2, leaves, timeout_s=600)[1] == "RankLostError: rank 0 has ended"

    path = make_file(2, SLOT)
    child = multiprocessing.get_context("fork").Process(target=_waits_forever, args=(path,))
    child.start()
    memory = SharedMemory(path, 0, 2, 600, SLOT)
    memory.sum(torch.ones(1))
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(RankLostError, match="rank 1 has ended"):
        memory.sum(torch.ones(1))
    child.join()
    os.unlink(path)


def _waits_forever(path):
    SharedMemory(path, 1, 2, 600, SLOT).sum(torch.ones(1))
    time.sleep(600)


@pytest.mark.integration
def test_a_rank_that_runs_is_waited_for_however_long_it_takes():
    """As rank 0 does while it writes a checkpoint: ten times the limit, and none is lost."""

    def late(memory):
        if memory.rank == 0:
            time.sleep(2)
        return memory.sum(torch.ones(1)).tolist()

    assert run(2, late, timeout_s=0.2) == [[2.0], [2.0]]


def test_a_rank_that_never_comes_is_not_waited_for_longer_than_allowed():
    path = make_file(2, SLOT)
    memory = SharedMemory(path, 0, 2, 0.2, SLOT)
    os.unlink(path)
    with pytest.raises(RankLostError, match=r"rank 1 did not come within 0\.2 s"):
        memory.sum(torch.ones(1))


def test_another_process_of_a_dead_ranks_number_is_not_taken_for_it():
    path = make_file(2, SLOT)
    memory, other = (SharedMemory(path, rank, 2, 600, SLOT) for rank in (0, 1))
    os.unlink(path)
    other._lines[1, shared_memory.BORN] -= 1  # it was born before the process that has its number now
    with pytest.raises(RankLostError, match="rank 1 has ended"):
        memory.sum(torch.ones(1))


def test_the_file_is_this_users_alone_and_of_the_size_that_the_ranks_expect():
    path = make_file(2, SLOT)
    assert Path(path).stat().st_mode & 0o777 == 0o600
    with pytest.raises(InvariantError, match="the memory of 3 ranks"):
        SharedMemory(path, 0, 3, slot_bytes=SLOT)
    os.unlink(path)
    with pytest.raises(FileNotFoundError):
        SharedMemory(path, 0, 2, slot_bytes=SLOT)


def test_without_room_there_is_no_file(full):
    assert make_file(2, 1 << 20) is None
    assert not list(full.iterdir())
