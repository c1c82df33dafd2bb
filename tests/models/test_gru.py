"""The GRU's layers and written-out gradients, against torch's own cell and autograd."""

import math

import pytest
import torch

from sparkrec.models import gru
from sparkrec.models.gru import GruNetwork
from sparkrec.models.network import (
    Batch,
    Parameters,
    Table,
    autograd_gradients,
    from_tensors,
    init_parameters,
    init_rows,
    to_tensors,
)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_cell_is_torchs_and_its_gradient_autograds():
    sizes = gru.cell_sizes((4, 3), 3)
    flat = torch.randn(gru.cells_size(sizes), generator=seeded(1))
    for cell, (n_in, width) in zip(gru.cells_of(sizes, flat), sizes, strict=True):
        reference = torch.nn.GRUCell(n_in, width)
        for name in gru.Cell.__annotations__:
            getattr(reference, name).data.copy_(getattr(cell, name))
        x = torch.randn(6, n_in, generator=seeded(2)).requires_grad_()
        h, d_out = torch.randn(6, width, generator=seeded(3)), torch.randn(6, width, generator=seeded(4))
        expected = reference(x, h)
        expected.backward(d_out)
        out, tape = gru.cell_forward(cell, x.detach(), h)
        grads = gru.Cell(*(torch.zeros_like(getattr(cell, n)) for n in gru.Cell.__annotations__))
        d_x = gru.cell_backward(cell, tape, d_out, grads)
        assert torch.allclose(out, expected, atol=1e-6)
        assert torch.allclose(d_x, x.grad, atol=1e-6)
        for name in gru.Cell.__annotations__:
            assert torch.allclose(getattr(grads, name), getattr(reference, name).grad, atol=1e-5)


def test_initial_weights_are_uniform_within_the_bound():
    network = GruNetwork(3000, (50, 40))
    parameters = init_parameters(network, 1)
    embedding, bias = parameters.tables
    bound = math.sqrt(6 / (3000 + 40))
    assert embedding.abs().max() <= bound
    assert embedding.abs().max() > 0.99 * bound
    assert embedding.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert bias.shape == (3000, 1)
    assert bias.abs().max() == 0
    sizes = gru.cell_sizes((50, 40), 40)
    for cell, (n_in, width) in zip(gru.cells_of(sizes, parameters.flat), sizes, strict=True):
        for matrix, columns in ((cell.weight_ih, n_in), (cell.weight_hh, width)):
            bound = math.sqrt(6 / (width + columns))  # each gate's matrix by itself, not the three stacked
            assert matrix.abs().max() <= bound
            assert matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        assert cell.bias_ih.abs().max() == 0
        assert cell.bias_hh.abs().max() == 0


def test_appended_rows_do_not_depend_on_how_many_there_are():
    few, many = (init_rows(Table("embedding", n, 5, 5), n - 10, seed=1, first=10) for n in (12, 40))
    assert torch.equal(few, many[:2])
    assert not torch.equal(few, init_rows(Table("embedding", 12, 5, 5), 2, seed=2, first=10))


def test_tensors_there_and_back():
    network = GruNetwork(6, (4, 3))
    parameters = init_parameters(network, 1)
    named = to_tensors(network, parameters)
    assert named["bias"].shape == (6,)
    back = from_tensors(network, named)
    assert all(torch.equal(a, b) for a, b in zip(back.tables, parameters.tables, strict=True))
    assert torch.equal(back.flat, parameters.flat)


# ---- one step --------------------------------------------------------------------------------------------------------


def a_batch(n_items, n_lanes=5):
    """Inputs and targets with repeats, inputs that are no candidates, sessions that begin and others that go on."""
    inputs = torch.randint(0, n_items, (n_lanes,), generator=seeded(1))
    targets = torch.randint(0, n_items, (n_lanes,), generator=seeded(2))
    sampled = torch.randint(0, n_items // 2, (6,), generator=seeded(3))
    distinct, place = torch.unique(inputs, return_inverse=True)
    candidates, column = torch.unique(torch.cat([targets, sampled]), return_inverse=True)
    assert not torch.isin(distinct, candidates).all()
    count = torch.bincount(column, minlength=len(candidates)).float()
    start = torch.tensor([1, 0, 0, 2, 0], dtype=torch.int8)
    return Batch(distinct, candidates, count, torch.zeros(len(candidates)), place, column[:n_lanes], start,
                 torch.arange(n_lanes), None, n_lanes, 1, 0)  # fmt: skip


def plain_forward(network, batch, touched, masks):
    """Scores of one step, in torch's own cells."""

    def forward(weights, hidden):
        x = weights.tables[0][touched[0].input] * masks[0]
        new = []
        sizes = gru.cell_sizes(network.layers, network.layers[-1])
        for i, (n_in, width) in enumerate(sizes):
            cell = torch.nn.GRUCell(n_in, width)
            named = vars(gru.cells_of(sizes, weights.flat)[i])
            h = torch.where(batch.start[:, None] > 0, 0.0, hidden[i])
            x = torch.func.functional_call(cell, named, (x, h)) * masks[i + 1]
            new.append(x)
        n = len(batch.candidates)
        return x @ weights.tables[0][:n].T + weights.tables[1][:, 0], new

    return forward


def test_gradients_of_a_step_are_autograds():
    network = GruNetwork(20, (4, 3), 0.4, 0.3)
    batch = a_batch(20)
    touched = network.touched(batch)
    parameters = init_parameters(network, 1)
    blocks = tuple(table[t.rows] for table, t in zip(parameters.tables, touched, strict=True))
    weights = Parameters(blocks, torch.randn(network.flat_size, generator=seeded(4)))
    hidden = [torch.randn(5, w, generator=seeded(5)) for w in network.state_widths]
    masks = [torch.bernoulli(torch.full((5, m.width), 0.5), generator=seeded(6)) * 2 for m in network.masks]

    def score_loss(scores):
        return (scores**3).sum(), 3 * scores**2

    found = network.gradients(weights, hidden, batch, touched, masks, score_loss)
    expected = autograd_gradients(plain_forward(network, batch, touched, masks), weights, hidden, score_loss)
    assert torch.allclose(found.loss, expected.loss)
    pairs = [
        *zip(found.weights.tables, expected.weights.tables, strict=True),
        (found.weights.flat, expected.weights.flat),
    ]
    for one, other in [*pairs, *zip(found.hidden, expected.hidden, strict=True)]:
        assert one.shape == other.shape
        assert torch.allclose(one, other, atol=1e-5)
        assert other.abs().max() > 0
