"""The GRU's compiled whole step against the step by operations, and the matrix product that it calls."""

import ctypes
import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit

from sparkrec.models.gru.compiled import blas
from sparkrec.models.gru.compiled.step import product
from sparkrec.models.gru.fused import FusedSteps, fusible
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import GruState
from sparkrec.ranks.shared_memory import SharedMemory, make_file
from sparkrec.settings.config import load_config
from tests.models.gru.step_cases import ONE, plain_steps, trainer_of, trainings

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.integration
@given(trainings(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_whole_step_is_the_step_by_operations(drawn, cut):
    config, chunk, samples = drawn
    n, lanes = chunk.target.shape
    expected, losses = plain_steps(config, chunk, samples)
    trainer, state = trainer_of(config)
    steps, drops = FusedSteps(trainer, state, torch.arange(lanes), lanes), torch.Generator().manual_seed(5)
    found = []
    for part in (slice(0, n // 2), slice(n // 2, n)) if cut and n > 1 else (slice(None),):
        piece = Chunk(chunk.input[part], chunk.target[part], chunk.start[part], chunk.n_valid[part])
        found += steps.run(piece, samples[part], drops)
    assert found == pytest.approx(losses, rel=1e-4, abs=1e-5)
    for mine, plain in zip((*state.rows, state.flat), (*expected.rows, expected.flat), strict=True):
        assert torch.allclose(mine, plain, rtol=1e-3, atol=1e-5)


def test_whole_steps_are_what_the_shipped_settings_train_by_and_others_do_not():
    """Each way alone would give the right model: only the time would tell that the slower one was taken."""
    shipped = load_config(None, []).gru
    trainer, state = trainer_of(shipped)
    assert fusible(trainer, state, shipped.lanes, ONE)
    path = make_file(1)
    memory = SharedMemory(path, 0, 1)
    os.unlink(path)
    both = GruState(state.rows, state.flat, memory)
    assert fusible(trainer, both, shipped.lanes, ONE)  # the shipped step fits into a message
    assert not fusible(trainer, both, 2000, ONE)
    for other in (
        {"embedding": "separate"},
        {"embedding": "none"},
        {"bptt": 2},
        {"bloom_rows": 8},
        {"event_types": True},
    ):
        config = GruConfig(**{"layers": [4], "embedding_dim": 4, **other})
        assert not fusible(*trainer_of(config), config.lanes, ONE)


@pytest.fixture(scope="module")
def multiply():
    """The product, compiled for matrices whose rows follow one another and for parts of wider ones, and no others."""
    blas.provide()

    def multiply(a, turn_a, b, turn_b, keep, out):
        product(a, turn_a, b, turn_b, keep, out)

    kinds = ("float32[:, ::1]", "float32[:, :]")
    return njit([f"void({a}, boolean, {a}, boolean, float32, {a})" for a in kinds], cache=True)(multiply)


@pytest.mark.integration
@given(*[st.integers(0, 12)] * 3, st.booleans(), st.booleans(), st.sampled_from([0.0, 1.0]), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_products_are_numpys_whatever_the_shapes(multiply, m, n, k, turn_a, turn_b, keep, more):
    """Also of parts of wider matrices, and where there are no rows or nothing to add up."""
    rng = np.random.default_rng(1)

    def part(rows, columns):
        return rng.normal(size=(rows, columns + more)).astype(np.float32)[:, :columns]

    a, b, out = part(*((k, m) if turn_a else (m, k))), part(*((n, k) if turn_b else (k, n))), part(m, n)
    expected = (a.T if turn_a else a) @ (b.T if turn_b else b) + np.float32(keep) * out
    if not keep:
        out[:] = np.nan  # which must not be read
    multiply(a, turn_a, b, turn_b, np.float32(keep), out)
    assert np.allclose(out, expected, atol=1e-4)


def test_scipys_product_stands_in_where_pytorch_shows_none(monkeypatch):
    address = blas._scipy_address()
    routine = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 13)(address)
    a, b, out = np.array([[1.0, 2.0]], np.float32), np.array([[3.0], [4.0]], np.float32), np.zeros((1, 1), np.float32)
    sizes, factors = np.array([1, 1, 2, 1, 2, 1], np.int32), np.array([1.0, 0.0], np.float32)
    turned = np.frombuffer(b"NN", np.uint8)
    at, of, t = sizes.ctypes.data, factors.ctypes.data, turned.ctypes.data
    routine(t, t + 1, at, at + 4, at + 8, of, b.ctypes.data, at + 12, a.ctypes.data, at + 16, of + 4, out.ctypes.data,
            at + 20)  # fmt: skip
    assert out[0, 0] == 11.0
    known = []
    monkeypatch.setattr(blas, "_torch_address", lambda: None)
    monkeypatch.setattr("llvmlite.binding.add_symbol", lambda name, at: known.append(at))
    blas.provide()
    assert known == [address]
