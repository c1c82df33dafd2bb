"""The GRU's step for a GPU's recorder, unrecorded and on the CPU: sizes that never vary, and the same numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkrec.models.gru.ahead import on_device, one_ahead
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.recorded import GraphedSteps, first_places, graphable, repeated_batch
from sparkrec.models.gru.settings import GruConfig
from sparkrec.ranks.launch import run_ranks
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.step_cases import ONE, plain_steps, trainer_of, trainings

pytestmark = pytest.mark.usefixtures("one_thread")


@given(trainings(embeddings=("constrained", "separate", "none"), cells=("gru", "lstm"), typed=(False, True)))
@settings(max_examples=60, deadline=None)
def test_a_step_of_repeated_items_is_the_step_of_distinct_ones(drawn):
    config, chunk, samples = drawn
    expected, losses = plain_steps(config, chunk, samples)
    trainer, state = trainer_of(config)
    steps = GraphedSteps(trainer, state, ONE, chunk.target.shape[1], record=False)
    found = [float(loss) for loss in steps.run(chunk, samples, torch.Generator().manual_seed(5))]
    assert found == pytest.approx(losses, rel=1e-4, abs=1e-5)
    for mine, plain in zip((*state.rows, state.flat), (*expected.rows, expected.flat), strict=True):
        assert torch.allclose(mine, plain, rtol=1e-3, atol=1e-5)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_each_item_points_to_the_first_that_is_the_same(items):
    assert first_places(torch.tensor(items)).tolist() == [items.index(item) for item in items]


def test_no_size_of_a_step_depends_on_its_items():
    """A recorder replays operations of the sizes that it has seen."""
    start, sizes = torch.zeros(4, dtype=torch.int8), set()
    for items in (torch.zeros(4).long(), torch.arange(4), torch.tensor([5, 5, 1, 1])):
        batch = repeated_batch(items, items.flip(0), start, torch.cat([items, items]))
        tensors = [t for t in vars(batch).values() if isinstance(t, torch.Tensor)]
        sizes.add(tuple(tuple(t.shape) for t in (*tensors, *vars(batch.repeats).values())))
    assert len(sizes) == 1


def test_steps_are_recorded_on_a_gpu_alone():
    assert not graphable(*trainer_of(GruConfig(layers=[4])), ONE)


# ---- chunks on their way ---------------------------------------------------------------------------------------------


def chunks_of(n):
    return [Chunk(*(torch.full((1, 2), k) for _ in range(3)), n_valid=[2]) for k in range(n)]


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_a_chunk_is_sent_before_the_one_ahead_of_it_is_worked_on_and_none_is_lost(n):
    log = []

    def send(chunk):
        number = int(chunk.input[0, 0])
        log.append(("sent", number))
        return lambda: log.append(("arrived", number)) or chunk

    for chunk in one_ahead(chunks_of(n), send):
        log.append(("steps", int(chunk.input[0, 0])))
    assert [number for what, number in log if what == "steps"] == list(range(n))
    for number in range(n):
        assert log.index(("arrived", number)) + 1 == log.index(("steps", number))
        if number + 1 < n:
            assert log.index(("sent", number + 1)) < log.index(("arrived", number))
    assert [c.n_valid for c in on_device(chunks_of(n), torch.device("cpu"))] == [[2]] * n


# ---- precision -------------------------------------------------------------------------------------------------------


def precision(_):
    return torch.get_float32_matmul_precision()


def test_products_are_as_exact_as_the_settings_say():
    usual = torch.get_float32_matmul_precision()
    try:
        for asked in ("medium", "high", "highest"):
            assert run_ranks(None, precision, (), TrainConfig(matmul_precision=asked, threads_per_rank=1)) == [asked]
    finally:
        torch.set_float32_matmul_precision(usual)
