"""Mistakes that implementations of GRU4Rec are known to make: each makes one of these tests fail.

Others of the kind are where they belong: the losses' equations in test_losses, initial weights and gradients in
test_network, dropout's rates in test_training, Adagrad and momentum in test_sampling_optimizer, the order and
completeness of sessions in test_lanes, resets and items never seen in the evaluation in test_states.
"""

import dataclasses

import pytest
import torch

from sparkrec.models.gru import train as gru
from sparkrec.models.gru.lanes import Chunk
from sparkrec.models.gru.network import gru_network
from sparkrec.models.gru.protocol import Parameters, init_parameters
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.step import GruState, Trainer, make_batch
from sparkrec.ranks.comm import SingleProcess
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import write_rows

N_ITEMS, NO_STARTS = 12, torch.zeros(3, dtype=torch.int8)
STILL = GruConfig(
    layers=[5], lanes=3, loss="cross-entropy", logq=0.0, n_sample=4, dropout_embedding=0.0, dropout_hidden=0.0,
    learning_rate=0.0, momentum=0.0,
)  # fmt: skip


def begun(config):
    """A trainer and a state with biases, and hidden states that are not 0."""
    network = gru_network(config, N_ITEMS)
    parameters = init_parameters(network, 1)
    parameters.tables[-1].normal_(generator=torch.Generator().manual_seed(1))
    hidden = [torch.randn(3, w, generator=torch.Generator().manual_seed(2)) for w in network.state_widths]
    return Trainer.create(network, config, torch.ones(N_ITEMS).long()), GruState.new(parameters), hidden


def batch_of(inputs, targets, starts, samples):
    chunk = Chunk(torch.tensor([inputs]), torch.tensor([targets]), torch.tensor([starts], dtype=torch.int8), [3])
    return make_batch(chunk, 0, torch.tensor(samples), torch.arange(3))


def step(trainer, state, hidden, batch):
    return trainer.step(state, hidden, batch, torch.Generator().manual_seed(1), SingleProcess()).item()


@pytest.mark.parametrize("starts", [(0, 0, 0), (0, 1, 0), (1, 1, 1)])
def test_a_lane_is_reset_where_its_session_begins_and_nowhere_else(starts):
    """A mask that is kept until the next session ends resets lanes in the middle of a session."""
    trainer, state, hidden = begun(STILL)
    step(trainer, state, hidden, batch_of([1, 2, 3], [2, 3, 4], [1, 1, 1], [5, 6]))
    before = [h.clone() for h in hidden]
    step(trainer, state, hidden, batch_of([2, 3, 4], [3, 4, 5], starts, [5, 6]))
    for lane, (item, start) in enumerate(zip([2, 3, 4], starts, strict=True)):
        states = [torch.zeros_like(h[lane : lane + 1]) if start else h[lane : lane + 1] for h in before]
        _, expected = trainer.network.advance(state.parameters(), torch.tensor([item]), states, NO_STARTS[:1])
        assert torch.allclose(hidden[0][lane], expected[0][0], atol=1e-6)


def test_softmax_is_taken_once_and_over_the_candidates():
    """Softmax over all items before the sampling, or once more inside of the loss, gives another loss."""
    trainer, state, hidden = begun(STILL)
    inputs, targets, samples = [1, 2, 3], [2, 3, 4], [5, 5, 2, 7]  # a repeat and an accidental hit
    vector, _ = trainer.network.advance(
        state.parameters(), torch.tensor(inputs), [h.clone() for h in hidden], NO_STARTS
    )
    matrix, bias = trainer.network.output(state.parameters())
    scores = (vector @ matrix.T + bias)[:, [*targets, *samples]]
    expected = torch.nn.functional.cross_entropy(scores, torch.arange(3), reduction="sum").item()
    assert step(trainer, state, hidden, batch_of(inputs, targets, [0, 0, 0], samples)) == pytest.approx(expected)


@pytest.mark.parametrize("loss", ["cross-entropy", "bpr", "top1", "bpr-max", "top1-max"])
@pytest.mark.parametrize("mode", ["constrained", "separate", "none"])
def test_items_outside_of_the_step_are_neither_scored_nor_updated(loss, mode):
    """What scores all items and samples afterwards would meet the rows that are not numbers here."""
    trainer, state, hidden = begun(dataclasses.replace(STILL, loss=loss, embedding=mode, learning_rate=0.1))
    batch = batch_of([1, 2, 3], [2, 3, 4], [1, 0, 0], [5, 5, 2, 7])
    for table, touched in zip(state.rows, trainer.network.touched(batch), strict=True):
        others = torch.ones(N_ITEMS, dtype=torch.bool).index_fill_(0, touched.rows, False)
        table[others] = torch.nan
    assert step(trainer, state, hidden, batch) > 0
    for table, touched in zip(state.rows, trainer.network.touched(batch), strict=True):
        assert torch.isfinite(table[touched.rows]).all()
        assert torch.isfinite(table).all(2).all(1).sum() == len(touched.rows)
    assert torch.isfinite(state.flat).all()


def test_dropout_acts_on_the_embedding_and_on_the_last_layer():
    trainer, state, hidden = begun(STILL)
    network, batch = trainer.network, batch_of([1, 2, 3], [2, 3, 4], [0, 0, 0], [5, 6])
    touched = network.touched(batch)
    blocks = tuple(table[t.rows] for table, t in zip(state.parameters().tables, touched, strict=True))
    weights = Parameters(blocks, state.flat[0])
    seen = []

    def score_loss(scores):
        seen.append(scores.clone())
        return scores.sum(), torch.ones_like(scores)

    nothing, everything = torch.zeros(3, 5), torch.ones(3, 5)
    without = network.gradients(weights, hidden, batch, touched, [nothing, everything], score_loss)
    blind = Parameters((torch.zeros_like(blocks[0]), blocks[1]), state.flat[0])
    unseen = network.gradients(blind, hidden, batch, touched, [None, None], score_loss)
    assert torch.equal(without.hidden[0], unseen.hidden[0])  # as if the embedding were 0
    last = network.gradients(weights, hidden, batch, touched, [everything, nothing], score_loss)
    assert torch.equal(seen[-1], blocks[1].T.expand(3, -1))  # the bias alone is left of the scores
    assert last.hidden[0].abs().max() == 0


@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_an_epoch_goes_on_until_the_last_session_ends(tmp_path, lanes):
    """It does not end when fewer sessions than lanes are left, nor when there are fewer from the start."""
    sessions = [[0, 1], [2, 3, 4, 5, 6, 7, 8], [1, 2, 3]]
    manifest = write_rows(tmp_path / "s", sessions, 1, lanes)
    config = dataclasses.replace(STILL, lanes=lanes, epochs=1)
    (stats,) = gru.train(
        SingleProcess(), manifest.path, str(tmp_path / "m"), config, TrainConfig(device="cpu"), N_ITEMS, {}
    )
    assert stats["events"] == 1 + 6 + 2
    assert stats["steps"] == {1: 9, 2: 6, 4: 6}[lanes]
