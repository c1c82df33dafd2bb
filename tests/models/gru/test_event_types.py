"""Types of events as inputs: by hand, by autograd, in lanes and on Spark, and never that of what comes next.

Whole trainings against a plain reference, on several ranks and resumed, are in test_variants.
"""

import dataclasses
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.gru import lanes, program
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.choice import stored_network
from sparkrec.models.gru.event_types import TypedNetwork
from sparkrec.models.gru.network import GruNetwork
from sparkrec.models.gru.protocol import Parameters, autograd_gradients, from_tensors, init_parameters, to_tensors
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.gru.states import next_item_ranks, session_states
from sparkrec.ranks.checkpoint import load_model, save_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import TrainConfig
from sparkrec.warehouse.tables import FEATURE_INDEX, SESSIONS
from tests.models.gru.cases import on_threads, random_sessions, write_rows
from tests.models.gru.step_cases import N_TYPES
from tests.models.gru.test_network import BACK, NETWORKS, a_batch, plain_forward, seeded

CPU = TrainConfig(device="cpu")
CODES = {"view": 1, "cart": 2, "buy": 3, "return": 4}
SMALL = GruConfig(
    layers=[8], lanes=6, loss="cross-entropy", logq=0.0, n_sample=0, dropout_embedding=0.0, dropout_hidden=0.0,
    learning_rate=0.2, momentum=0.0, epochs=6, event_types=True, embedding="separate", embedding_dim=8,
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


def train(comm, path, model, config, n_items, codes=CODES, earlier=None):
    types = codes if config.event_types else None
    return gru.train(comm, str(path), str(model), config, CPU, n_items, {}, earlier, event_types=types)


# ---- the network -----------------------------------------------------------------------------------------------------


def test_a_network_of_one_unit_by_hand():
    """Item rows 0.5 and -1, type rows 0, 0.25 and 2; all weights of inputs 1, of states 2, no biases."""
    network = TypedNetwork(GruNetwork(2, (1,), "separate", 1), 3)
    tables = ([0.5, -1.0], [3.0, 4.0], [0.1, 0.2], [0.0, 0.25, 2.0])
    assert [t.name for t in network.tables] == ["embedding", "output", "bias", "event_types"]
    flat = torch.tensor([1.0] * 3 + [2.0] * 3 + [0.0] * 6)
    parameters = Parameters(tuple(torch.tensor(rows)[:, None] for rows in tables), flat)
    states, h = [torch.zeros(1, 1)], 0.0
    for item, kind, x in ((0, 1, 0.75), (1, 2, 1.0), (1, 0, -1.0), (1, 9, -1.0)):  # of 9 nothing is known
        gate = 1 / (1 + math.exp(-(x + 2 * h)))
        h = (1 - gate) * math.tanh(x + gate * 2 * h) + gate * h
        given = torch.tensor([item]), states, torch.zeros(1, dtype=torch.int8), torch.tensor([kind])
        vector, states = network.advance(parameters, *given)
        assert vector.item() == pytest.approx(h)
        matrix, bias = network.output(parameters)
        scores = [3 * h + 0.1, 4 * h + 0.2]
        assert (vector @ matrix.T + bias)[0].tolist() == pytest.approx(scores)
        assert network.scorer(parameters, torch.tensor([1]))(vector).item() == pytest.approx(scores[1])


PLAIN = [*NETWORKS, *BACK]
PLAIN += [dataclasses.replace(network, frozen=True) for network in PLAIN if network.embedding == "separate"]


@pytest.mark.parametrize("plain", PLAIN, ids=lambda n: f"{n.cell}-{n.embedding}-{len(n.layers)}-{n.bptt}-{n.frozen}")
def test_gradients_of_a_step_are_autograds(plain):
    """Of a network whose table of inputs is that of items, below which the inputs' sums are laid."""
    network, frozen = TypedNetwork(plain, N_TYPES), plain.frozen
    types = torch.randint(0, N_TYPES, (plain.bptt, 5), generator=seeded(9))
    batch = dataclasses.replace(a_batch(20, bptt=plain.bptt), types=types)
    touched = network.touched(batch)
    tables = [t.normal_(generator=seeded(n)) for n, t in enumerate(init_parameters(network, 1).tables)]
    blocks = tuple(table[t.rows].double() for table, t in zip(tables, touched, strict=True))
    flat = torch.randn(network.flat_size, generator=seeded(4)).double()
    hidden = [
        torch.randn(5, w, generator=seeded(5 + b)).double() for b in range(plain.bptt) for w in network.state_widths
    ]
    masks = [(torch.bernoulli(torch.full((5, m.width), 0.5), generator=seeded(6)) * 2).double() for m in network.masks]

    def score_loss(scores):
        return (scores**3).sum(), 3 * scores**2

    def forward(weights, hidden):
        items, *outputs, of_types = weights.tables
        places = torch.cat([touched[0].past, touched[0].input[None]])
        inputs = (items[places] + of_types[types]).flatten(0, 1)
        at = len(items) + torch.arange(len(inputs)).view_as(places)
        here = [dataclasses.replace(touched[0], input=at[-1], past=at[:-1]), *touched[1:-1]]
        joined = Parameters((torch.cat([items, inputs]), *outputs), weights.flat)
        return plain_forward(plain, batch, here, masks)(joined, hidden)

    found = network.gradients(Parameters(blocks, flat), hidden, batch, touched, masks, score_loss)
    expected = autograd_gradients(forward, Parameters(blocks, flat), hidden, score_loss)
    for mine, other in zip(
        (*found.tables[frozen:], found.flat), (*expected.tables[frozen:], expected.flat), strict=True
    ):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() <= 1e-12 * other.abs().max()
        assert other.abs().max() > 0
    assert len(found.tables[0]) == (0 if frozen else len(blocks[0]))


def test_without_types_it_makes_no_step():
    network = TypedNetwork(GruNetwork(20, (5,)), N_TYPES)
    parameters = init_parameters(network, 1)
    states, start = [torch.zeros(1, 5)], torch.zeros(1, dtype=torch.int8)
    with pytest.raises(ValueError, match="needs those of the inputs"):
        network.advance(parameters, torch.tensor([0]), states, start)


# ---- lanes and trainings ---------------------------------------------------------------------------------------------


def test_an_input_has_the_type_of_its_own_event():
    session, item = np.array([5, 5, 5, 3, 3, 9, 8, 8]), np.array([10, 11, 12, 20, 21, 30, 40, 41])
    walked = lanes.walk_lanes(session, item, 2, types=item - 9)
    assert walked.input.tolist() == [[10, 20], [11, 40]]
    assert walked.types.tolist() == [[1, 11], [2, 31]]


@pytest.mark.integration
@pytest.mark.parametrize("bptt", [1, 3])
def test_ranks_that_share_memory_and_chunks_change_nothing(tmp_path, monkeypatch, bptt):
    config = dataclasses.replace(
        SMALL, lanes=7, n_sample=9, bptt=bptt, dropout_embedding=0.3, epochs=2, learning_rate=0.1
    )
    sessions = random_sessions(40, 23, seed=40)
    types = [[1 + (7 * x + at) % 4 for at, x in enumerate(s)] for s in sessions]
    path = write_rows(tmp_path / "s", sessions, 6, 7, types=types).path
    (expected,) = on_threads(1, train, path, tmp_path / "one", config, 23)
    runs = [on_threads(2, train, path, tmp_path / "two", config, 23, slot_bytes=1 << 20)[0]]
    monkeypatch.setattr(gru, "_CHUNK_IDS", 1)  # a chunk a step
    runs.append(on_threads(3, train, path, tmp_path / "three", config, 23)[0])
    for history in runs:
        assert [h["loss"] for h in history] == pytest.approx([h["loss"] for h in expected], rel=1e-5)
    weights, described = load_model(str(tmp_path / "one"))
    for name in ("two", "three"):
        assert all(torch.allclose(load_model(str(tmp_path / name))[0][k], v, atol=1e-4) for k, v in weights.items())
    assert weights["event_types"][1:].abs().sum(1).min() > 0
    assert weights["event_types"][0].tolist() == [0.0] * 8
    assert described["event_types"] == CODES
    assert described["events_of_types"] == np.bincount([t for of in types for t in of], minlength=5).tolist()


def made_log(by_type, n=150):
    """Sessions of 8 items, two of each type; ``by_type``: an event's type decides on the next item, else its own."""
    rng = np.random.default_rng(5)
    sessions, types = [], []
    for _ in range(n):
        kinds = rng.integers(0, 4, 6)
        decides = np.append(0, kinds[:-1]) if by_type else kinds
        sessions.append((2 * decides + rng.integers(0, 2, 6)).tolist())
        types.append((1 + kinds).tolist())
    return sessions, types


def recall_at_2(path, sessions, types):
    weights, described = load_model(str(path))
    network = stored_network(described, weights)
    parameters = from_tensors(network, weights)
    matrix, bias = network.output(parameters)
    hits, states = [], [torch.zeros(len(sessions), 8)]
    items, kinds = torch.tensor(sessions), torch.tensor(types)
    for at in range(5):
        begins = torch.full((len(sessions),), int(at == 0), dtype=torch.int8)
        vector, states = network.advance(parameters, items[:, at], states, begins, kinds[:, at])
        best = (vector @ matrix.T + bias).topk(2).indices
        hits.append((best == items[:, at + 1, None]).any(1).float().mean().item())
    return np.mean(hits)


@pytest.mark.integration
def test_what_the_types_alone_tell_is_learnt_with_them_and_not_without(tmp_path):
    log = made_log(by_type=True)
    path = write_rows(tmp_path / "s", log[0], 2, 6, types=log[1]).path
    reached = {}
    for typed in (True, False):
        train(SingleProcess(), path, tmp_path / str(typed), dataclasses.replace(SMALL, event_types=typed), 8)
        reached[typed] = recall_at_2(tmp_path / str(typed), *log)
    assert reached[True] > 0.9
    assert reached[False] < 0.45  # two of eight


def test_the_type_of_what_comes_next_is_not_known(tmp_path, monkeypatch):
    """Each item has a type of its own here, so the next event's would tell the item; those before tell nothing."""
    log = made_log(by_type=False)
    path = write_rows(tmp_path / "s", log[0], 2, 6, types=log[1]).path
    losses = {}
    for name in ("right", "leak"):
        losses[name] = train(SingleProcess(), path, tmp_path / name, SMALL, 8)[-1]["loss"]
        walk = lanes.walk_lanes
        monkeypatch.setattr(gru, "walk_lanes", lambda *a, walk=walk: walk(*a[:-1], np.roll(a[-1], -1)))
    assert losses["leak"] < 0.6 * losses["right"]


def test_a_code_that_the_settings_do_not_know_is_noticed(tmp_path):
    path = write_rows(tmp_path / "s", [[1, 2, 3]], 1, 1, types=[[1, 2, 5]]).path
    with pytest.raises(InvariantError, match="an event_type is outside of the codes below 5"):
        train(SingleProcess(), path, tmp_path / "m", SMALL, 8)


def test_a_warm_start_finds_types_by_their_names(tmp_path):
    sessions, types = made_log(by_type=True, n=20)
    path = write_rows(tmp_path / "s", sessions, 2, 6, types=types).path
    train(SingleProcess(), path, tmp_path / "earlier", dataclasses.replace(SMALL, epochs=1), 8)
    still = dataclasses.replace(SMALL, epochs=1, learning_rate=1e-12, warm_start=True)
    codes = {"buy": 1, "cart": 2, "wish": 3, "view": 4, "rent": 5}
    train(SingleProcess(), path, tmp_path / "m", still, 8, codes, str(tmp_path / "earlier"))
    (before, _), (after, _) = (load_model(str(tmp_path / name)) for name in ("earlier", "m"))
    expected = {name: before["event_types"][CODES[name]] if name in CODES else torch.zeros(8) for name in codes}
    for name, code in codes.items():
        torch.testing.assert_close(after["event_types"][code], expected[name])
    plain = dataclasses.replace(still, event_types=False)
    with pytest.raises(UserError, match="another shape"):
        train(SingleProcess(), path, tmp_path / "n", plain, 8, earlier=str(tmp_path / "earlier"))


# ---- in a night ------------------------------------------------------------------------------------------------------

N_ITEMS, UNTRAINED = 11, {4}
ROWS = {
    "long": ([0, 1, 4, 3, 0], [1, 3, 2, 2, 9]),
    "one": ([6], [2]),
    "none": ([4], [1]),
    "two": ([8, 4, 10], [3, 2, 1]),
}


@pytest.fixture(scope="module")
def sessions(spark):
    rows = [(name, n, items, types) for n, (name, (items, types)) in enumerate(ROWS.items())]
    ddl = "session_id string, user_idx int, items array<int>, event_types array<int>"
    return spark.createDataFrame(rows, ddl)


@pytest.mark.integration
def test_sessions_are_served_with_the_types_of_their_known_events(sessions, tmp_path):
    network = TypedNetwork(GruNetwork(N_ITEMS, (5,)), 1 + len(CODES))
    parameters = init_parameters(network, 2)
    for n, table in enumerate(parameters.tables):
        table.normal_(generator=seeded(n))
    parameters.tables[-1][0] = 0
    counts = torch.tensor([i not in UNTRAINED for i in range(N_ITEMS)]).long()
    described = {"n_items": N_ITEMS, "config": {"layers": [5], "event_types": True}}
    save_model(str(tmp_path), {**to_tensors(network, parameters), "counts": counts}, described)
    matrix, bias = network.output(parameters)
    vectors, ranks = {}, {}
    for name, (items, types) in ROWS.items():
        states, found = [torch.zeros(1, 5)], torch.zeros(1, 5)
        kept = [(i, t) for i, t in zip(items, types, strict=True) if i not in UNTRAINED]
        for at, (item, kind) in enumerate(kept):
            if at:
                scores = (found @ matrix.T + bias)[0, counts > 0]
                ranks[name, at] = int((scores >= (found @ matrix.T + bias)[0, item] - 1e-6).sum())
            given = torch.tensor([item]), states, torch.zeros(1, dtype=torch.int8), torch.tensor([kind])
            found, states = network.advance(parameters, *given)
        vectors[name] = found[0].tolist()
    rows = {r["session_id"]: r["vector"] for r in session_states(sessions, str(tmp_path)).collect()}
    assert rows == {name: pytest.approx(vector, abs=1e-6) for name, vector in vectors.items()}
    judged = next_item_ranks(sessions, str(tmp_path)).collect()
    assert {(r["session_id"], r["position"]): r["rank"] for r in judged} == ranks


@pytest.mark.integration
def test_a_snapshot_has_the_types_beside_the_items(sessions):
    rows = sessions.selectExpr("*", "timestamp_micros(5) as start_ts")
    plan = gru.snapshot_rows(rows, SMALL)
    found = plan.rows.where("item in (1, 8)").select("position", "item", "event_type").collect()
    assert sorted(map(tuple, found)) == [(0, 8, 3), (1, 1, 3)]
    assert "event_type" not in gru.snapshot_rows(rows, GruConfig()).rows.columns


@pytest.mark.integration
def test_what_gives_the_types_no_meaning_is_said(spark, sessions, tmp_path):
    config = load_config(None, ["gru.event_types=true"])
    with pytest.raises(UserError, match=r"of one type of events.*session_events=\['view'\]"):
        program.check(config, SimpleNamespace(session_events=("view",)))
    program.check(config, SimpleNamespace(session_events=("view", "buy")))
    index = spark.createDataFrame([("event.type", "view", 1), ("item.kind", "buy", 2)], FEATURE_INDEX.ddl)
    tables = {SESSIONS.name: sessions, FEATURE_INDEX.name: index}
    inputs = SimpleNamespace(read=lambda table: tables[table.name], night=SimpleNamespace(run_date="2024-01-01"))
    assert program.event_types(inputs) == {"view": 1}
    tables[SESSIONS.name] = sessions.selectExpr("session_id", "cast(null as array<int>) as event_types")
    with pytest.raises(UserError, match=r"sessions without types of events.*--from index"):
        program.event_types(inputs)
    path = write_rows(tmp_path / "s", [[1, 2, 3]], 1, 1, types=[[2, 2, 2]]).path
    train(SingleProcess(), path, tmp_path / "m", dataclasses.replace(SMALL, epochs=1), 8)
    assert "no effect: all events are of one type" in program._said_of_types(str(tmp_path / "m"))
