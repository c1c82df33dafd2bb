"""The GRU's layers and written-out gradients, against torch's own cell and autograd."""

import math
from dataclasses import replace

import pytest
import torch

from sparkrec.models.gru import cells as gru
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import (
    Parameters,
    Table,
    autograd_gradients,
    from_tensors,
    init_parameters,
    init_rows,
    to_tensors,
)
from sparkrec.models.gru.step import make_batch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.integration
def test_cell_is_torchs_and_its_gradient_autograds():
    sizes = gru.cell_sizes((4, 3), 3)
    flat = torch.randn(gru.cells_size(sizes), generator=seeded(1))
    for cell, (n_in, width) in zip(gru.cells_of(sizes, flat), sizes, strict=True):
        reference = torch.nn.GRUCell(n_in, width)
        for name in gru.Cell.__annotations__:
            getattr(reference, name).data.copy_(getattr(cell, name))
        x = torch.randn(6, n_in, generator=seeded(2)).requires_grad_()
        h = torch.randn(6, width, generator=seeded(3)).requires_grad_()
        d_out = torch.randn(6, width, generator=seeded(4))
        expected = reference(x, h)
        expected.backward(d_out)
        out, tape = gru.cell_forward(cell, x.detach(), h.detach())
        grads = gru.Cell(*(torch.zeros_like(getattr(cell, n)) for n in gru.Cell.__annotations__))
        d_x, d_h = gru.cell_backward(cell, tape, d_out, grads, recurrent=True)
        assert torch.allclose(out, expected, atol=1e-6)
        assert torch.allclose(d_x, x.grad, atol=1e-6)
        assert torch.allclose(d_h, h.grad, atol=1e-6)
        for name in gru.Cell.__annotations__:
            assert torch.allclose(getattr(grads, name), getattr(reference, name).grad, atol=1e-5)


def uniform_within(matrix, bound):
    return (
        0.99 * bound < matrix.abs().max() <= bound
        and matrix.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)
        and abs(matrix.mean().item()) < 0.1 * bound
    )


@pytest.mark.parametrize("mode", ["constrained", "separate", "none"])
def test_initial_weights_are_uniform_within_the_bound(mode):
    network = GruNetwork(3000, (50, 40), mode, 30)
    named = to_tensors(network, init_parameters(network, 1))
    ins = {"constrained": 40, "separate": 30, "none": None}[mode]
    bounds = {"input_gates": 3000 + 50, "output": 3000 + 40, "embedding": 3000 + (ins or 0)}
    assert uniform_within(
        named.pop("embedding" if ins else "input_gates"), math.sqrt(6 / bounds["embedding" if ins else "input_gates"])
    )
    if mode != "constrained":
        assert uniform_within(named.pop("output"), math.sqrt(6 / bounds["output"]))
    for name, weight in named.items():
        if weight.dim() == 1:
            assert weight.abs().max() == 0, name
            continue
        for gate in weight.chunk(3):  # each gate's matrix by itself, not the three stacked
            assert uniform_within(gate, math.sqrt(6 / sum(gate.shape))), name
    matrices = [name for name, weight in named.items() if weight.dim() == 2]
    assert len(matrices) == (3 if mode == "none" else 4)


def test_appended_rows_do_not_depend_on_how_many_there_are():
    few, many = (init_rows(Table("embedding", n, 5, 5), n - 10, seed=1, first=10) for n in (12, 40))
    assert torch.equal(few, many[:2])
    assert not torch.equal(few, init_rows(Table("embedding", 12, 5, 5), 2, seed=2, first=10))


@pytest.mark.parametrize("mode", ["constrained", "separate", "none"])
def test_tensors_there_and_back(mode):
    network = GruNetwork(6, (4, 3), mode, 5)
    parameters = init_parameters(network, 1)
    named = to_tensors(network, parameters)
    assert named["bias"].shape == (6,)
    back = from_tensors(network, named)
    assert all(torch.equal(a, b) for a, b in zip(back.tables, parameters.tables, strict=True))
    assert torch.equal(back.flat, parameters.flat)


# ---- one step --------------------------------------------------------------------------------------------------------


def a_batch(n_items, n_lanes=5, bptt=1):
    """Inputs and targets with repeats, inputs that are no candidates, sessions that begin and others that go on."""
    starts = torch.tensor([[0, 1, 0, 0, 0], [1, 0, 0, 0, 0], [0, 0, 1, 0, 0]], dtype=torch.int8)[: bptt - 1]
    past = torch.randint(0, n_items, (bptt - 1, n_lanes), generator=seeded(8))
    inputs = torch.randint(0, n_items, (n_lanes,), generator=seeded(1))
    targets = torch.randint(0, n_items, (n_lanes,), generator=seeded(2))
    sampled = torch.randint(0, n_items // 2, (6,), generator=seeded(3))
    start = torch.tensor([1, 0, 0, 2, 0], dtype=torch.int8)
    begun = Chunk(torch.cat([past, inputs[None]]), targets[None], torch.cat([starts, start[None]]), [n_lanes])
    batch = make_batch(begun, 0, sampled, torch.arange(n_lanes))
    assert not torch.isin(batch.inputs, batch.candidates).all()
    return batch


def plain_forward(network, batch, touched, masks):
    """Scores of one step, in torch's own cells; without an embedding the first layer as Cho et al. write it.

    The hidden states of the first of ``bptt`` steps are given; the steps after it are run again.
    """
    lookup, n = network.embedding == "none", len(network.layers)
    x_masks, h_masks = ([1.0] * network.bptt, masks) if lookup else (masks[: network.bptt], masks[network.bptt :])
    steps = zip([*touched[0].past, touched[0].input], [*batch.past_start, batch.start], x_masks, strict=True)
    steps = list(steps)

    def forward(weights, hidden):
        named = network.flat_tensors(weights.flat)
        states = list(hidden[:n])
        for rows, start, mask in steps:
            x = weights.tables[0][rows] * mask
            for i, h in enumerate(states):
                layer = {name.split(".")[2]: w for name, w in named.items() if name.startswith(f"{network.cell}.{i}.")}
                cell = plain_lookup if lookup and i == 0 else torchs
                h = torch.where(start[:, None] > 0, 0.0, h)
                if network.cell == "lstm":
                    h, c = torch.func.functional_call(
                        torch.nn.LSTMCell(x.shape[1], h.shape[1] // 2), layer, (x, h.chunk(2, 1))
                    )
                    x = h * h_masks[i]
                    states[i] = torch.cat([x, c], 1)  # no dropout of the cell's own state
                    continue
                x = cell(layer, x, h) * h_masks[i]
                states[i] = x
        scores = x @ weights.tables[-2][: len(batch.candidates)].T + weights.tables[-1][:, 0]
        return scores, [*hidden[n:], *states]

    return forward


def torchs(layer, x, h):
    return torch.func.functional_call(torch.nn.GRUCell(x.shape[1], h.shape[1]), layer, (x, h))


def plain_lookup(layer, x, h):
    (x_r, x_z, x_n), (w_r, w_z, w_n) = (x + layer["bias"]).chunk(3, 1), layer["weight_hh"].chunk(3)
    r, z = torch.sigmoid(x_r + h @ w_r.T), torch.sigmoid(x_z + h @ w_z.T)
    return (1 - z) * torch.tanh(x_n + (r * h) @ w_n.T) + z * h


NETWORKS = [
    GruNetwork(20, layers, mode, 6, 0.4, 0.3)
    for mode in ("constrained", "separate", "none")
    for layers in ((4, 3), (5,))
]
NETWORKS += [
    GruNetwork(20, layers, mode, 6, 0.4, 0.3, cell="lstm")
    for mode in ("constrained", "separate")
    for layers in ((4, 3), (5,))
]
BACK = [replace(network, bptt=bptt) for network in NETWORKS for bptt in (2, 4)]


@pytest.mark.parametrize(
    "network", [*NETWORKS, *BACK], ids=lambda n: f"{n.cell}-{n.embedding}-{len(n.layers)}-{n.bptt}"
)
def test_gradients_of_a_step_are_autograds(network):
    batch = a_batch(20, bptt=network.bptt)
    touched = network.touched(batch)
    parameters = init_parameters(network, 1)
    blocks = [table[t.rows] for table, t in zip(parameters.tables, touched, strict=True)]
    flat = torch.randn(network.flat_size, generator=seeded(4))
    hidden = [torch.randn(5, w, generator=seeded(5 + b)) for b in range(network.bptt) for w in network.state_widths]
    masks = [torch.bernoulli(torch.full((5, m.width), 0.5), generator=seeded(6)) * 2 for m in network.masks]

    weights = Parameters(tuple(block.double() for block in blocks), flat.double())
    states, drawn = [h.double() for h in hidden], [mask.double() for mask in masks]

    def score_loss(scores):
        return (scores**3).sum(), 3 * scores**2

    found = network.gradients(weights, states, batch, touched, drawn, score_loss)
    expected = autograd_gradients(plain_forward(network, batch, touched, drawn), weights, states, score_loss)
    rounding = 50 * torch.finfo(torch.float64).eps
    assert found.loss.item() == pytest.approx(expected.loss.item(), rel=rounding)
    mine, autograds = ((*g.tables, g.flat, *g.hidden) for g in (found, expected))
    for one, other in zip(mine, autograds, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().max() <= rounding * other.abs().max()
        assert other.abs().max() > 0


@pytest.mark.parametrize("network", NETWORKS, ids=lambda n: f"{n.cell}-{n.embedding}-{len(n.layers)}")
def test_serving_scores_are_those_of_training_without_dropout(network):
    batch = replace(a_batch(20), start=torch.zeros(5, dtype=torch.int8))
    touched = network.touched(batch)
    parameters = init_parameters(network, 1)
    parameters.tables[-1].normal_(generator=seeded(1))
    states = [torch.randn(5, w, generator=seeded(5)) for w in network.state_widths]
    blocks = tuple(table[t.rows] for table, t in zip(parameters.tables, touched, strict=True))
    seen = []

    def score_loss(scores):
        seen.append(scores.clone())
        return scores.sum(), torch.ones_like(scores)

    found = network.gradients(
        Parameters(blocks, parameters.flat), states, batch, touched, [None] * len(network.masks), score_loss
    )
    vector, new = network.advance(parameters, batch.inputs[batch.input], states, batch.start)
    matrix, bias = network.output(parameters)
    assert matrix.shape == (20, network.layers[-1])
    assert torch.allclose((vector @ matrix.T + bias)[:, batch.candidates], seen[0], atol=1e-6)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(new, found.hidden, strict=True))


def test_a_new_forget_gate_lets_the_state_pass():
    network = GruNetwork(3000, (50, 40), cell="lstm")
    named = to_tensors(network, init_parameters(network, 1))
    for layer, width in enumerate((50, 40)):
        assert named[f"lstm.{layer}.bias_ih"].view(4, width).tolist() == [[i == 1] * width for i in range(4)]
        for gate in named[f"lstm.{layer}.weight_hh"].chunk(4):
            assert uniform_within(gate, math.sqrt(6 / sum(gate.shape)))
