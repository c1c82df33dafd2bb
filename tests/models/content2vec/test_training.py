"""Training content2vec: on several ranks, broken off and resumed, and what it learns for items never bought."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from sparkrec.errors import InvariantError, UserError
from sparkrec.models.content2vec import train as content2vec
from sparkrec.models.content2vec.network import Content2VecShape, new_content2vec
from sparkrec.models.content2vec.settings import Content2VecConfig
from sparkrec.models.content2vec.train import hidden_items
from sparkrec.models.prod2vec.embeddings import stored_embeddings
from sparkrec.ranks.checkpoint import load_model, save_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads, write_rows

N_ITEMS, N_KINDS = 40, 4
SMALL = Content2VecConfig(dim=6, hidden=[7], window=3, negatives=3, epochs=3, learning_rate=0.05, batch_size=64, seed=2)
CPU = TrainConfig(device="cpu")
KIND = np.arange(N_ITEMS) % N_KINDS

pytestmark = pytest.mark.usefixtures("one_thread")


def baskets(n=150):
    """Of items of two kinds that go together, 0 with 1 and 2 with 3; items 32 … 39 are in none."""
    rng = np.random.default_rng(3)
    return [rng.permutation([i for i in range(32) if KIND[i] // 2 == k % 2])[:4].tolist() for k in range(n)]


def place(folder, sequences=None, n_files=6):
    """A snapshot with text vectors (a noisy code of the kind) and a prod2vec model, whose vectors know the pairs."""
    snapshot = write_rows(
        folder / "snapshot", baskets() if sequences is None else sequences, n_files, n_files, "sequence"
    )
    rng = np.random.default_rng(5)
    text = np.eye(N_KINDS)[KIND] + 0.05 * rng.normal(size=(N_ITEMS, N_KINDS))
    has_text = [i for i in range(N_ITEMS) if i not in (5, 39)]
    rows = {"item_idx": pa.array(has_text, pa.int32()), "name": ["text"] * len(has_text)}
    rows["vector"] = pa.array(text[has_text].astype(np.float32).tolist(), pa.list_(pa.float32()))
    (folder / "snapshot" / "vectors").mkdir()
    pq.write_table(pa.table(rows), folder / "snapshot" / "vectors" / "part-0.parquet")
    behaviour = np.eye(3)[KIND // 2] + 0.1 * rng.normal(size=(N_ITEMS, 3))
    behaviour[32:] = 0
    weights = {"vectors": torch.tensor(behaviour, dtype=torch.float32)}
    save_model(str(folder / "prod2vec"), weights, {"n_items": N_ITEMS})
    return snapshot.path, str(folder / "prod2vec")


def train(comm, where, path, config=SMALL, n_items=N_ITEMS, names=("text",)):
    return content2vec.train(comm, where[0], str(path), config, CPU, n_items, {"night": "x"}, where[1], names)


def loaded(path):
    return load_model(str(path))[0]


@pytest.mark.integration
@pytest.mark.parametrize("combine", ["residual", "concatenation"])
def test_any_number_of_ranks_gives_the_same_model(tmp_path, combine):
    where, config = place(tmp_path), dataclasses.replace(SMALL, combine=combine)
    expected = [h["loss"] for h in train(SingleProcess(), where, tmp_path / "one", config)]
    one = loaded(tmp_path / "one")
    for ranks in (2, 3):
        for history in on_threads(ranks, train, where, tmp_path / f"m{ranks}", config):
            assert [h["loss"] for h in history] == pytest.approx(expected, rel=1e-5)
        several = loaded(tmp_path / f"m{ranks}")
        assert one.keys() == several.keys()
        for name, tensor in one.items():
            torch.testing.assert_close(several[name], tensor, atol=1e-4, rtol=1e-3)


@pytest.mark.integration
def test_resume_gives_the_weights_of_an_unbroken_run(tmp_path):
    where = place(tmp_path)

    class Broken(SingleProcess):
        plans = 0

        def allreduce_sum(self, tensor):
            self.plans += tensor.shape == (6,)  # once an epoch: the files' pairs
            if self.plans == 3:
                raise ConnectionError("the other ranks are gone")
            return tensor.detach()

    whole = train(SingleProcess(), where, tmp_path / "whole")
    with pytest.raises(ConnectionError):
        train(Broken(), where, tmp_path / "resumed")
    assert len(list((tmp_path / "resumed").iterdir())) == 2
    resumed = train(SingleProcess(), where, tmp_path / "resumed")
    assert [h["loss"] for h in resumed] == [h["loss"] for h in whole]
    left, right = loaded(tmp_path / "whole"), loaded(tmp_path / "resumed")
    assert all(torch.equal(left[name], right[name]) for name in left)
    with pytest.raises(ConnectionError):
        train(Broken(), where, tmp_path / "ranks")
    on_threads(2, train, where, tmp_path / "ranks")
    torch.testing.assert_close(loaded(tmp_path / "ranks")["vectors"], left["vectors"], atol=1e-4, rtol=1e-3)


def test_another_prod2vec_model_does_not_resume(tmp_path):
    where = place(tmp_path)
    train(SingleProcess(), where, tmp_path / "m")
    first = load_model(str(tmp_path / "m"))[1]["prod2vec"]
    save_model(where[1], {"vectors": torch.eye(N_ITEMS)}, {"n_items": N_ITEMS})
    train(SingleProcess(), where, tmp_path / "m")
    assert load_model(str(tmp_path / "m"))[1]["prod2vec"] != first


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """The path of a model of six epochs, and their history."""
    folder = tmp_path_factory.mktemp("learnt")
    history = train(SingleProcess(), place(folder), folder / "m", dataclasses.replace(SMALL, epochs=6))
    return str(folder / "m"), history


def test_the_loss_falls_and_a_kind_goes_with_its_complement(learnt):
    path, history = learnt
    assert history[-1]["loss"] < 0.8 * history[0]["loss"]
    matrix = stored_embeddings(path).vectors
    cosine = matrix.vectors @ matrix.vectors.T
    pair = KIND // 2
    for item in range(32):
        others = [o for o in range(32) if o != item]
        assert cosine[item][[o for o in others if pair[o] == pair[item]]].min() > np.median(cosine[item][others])


def test_items_never_bought_get_a_vector_from_their_content_alone(learnt):
    """Beside bought items of their pair of kinds, whose prod2vec vectors theirs could not know but from training."""
    matrix = stored_embeddings(learnt[0]).vectors
    assert np.flatnonzero(~matrix.eligible).tolist() == [39]  # no text either
    assert load_model(learnt[0])[1]["items"] == {"learnt": 32, "by_content": 7, "without": 1}
    cosine = matrix.vectors @ matrix.vectors.T
    pair = KIND // 2
    bought = np.arange(32)
    for item in range(32, 39):
        nearest = bought[np.argsort(-cosine[item, bought])][:8]
        assert (pair[nearest] == pair[item]).all()
    assert matrix.eligible[5]  # prod2vec alone


def test_the_vectors_served_are_those_of_the_weights_stored(tmp_path):
    where = place(tmp_path)
    train(SingleProcess(), where, tmp_path / "m")
    weights = loaded(tmp_path / "m")
    model = new_content2vec(Content2VecShape((4,), 3, 6, (7,)), seed=9)
    model.load_state_dict({name[len("dense.") :]: t for name, t in weights.items() if name.startswith("dense.")})
    behaviour = F.normalize(loaded(where[1])["vectors"])
    text = torch.zeros(N_ITEMS, 4)
    found = pq.read_table(tmp_path / "snapshot" / "vectors")
    text[found["item_idx"].to_pylist()] = torch.tensor(found["vector"].to_pylist())
    with torch.no_grad():
        torch.testing.assert_close(model([text], behaviour), weights["vectors"])


def test_what_is_hidden_depends_on_the_item_and_the_step_alone():
    rows = np.arange(20_000)
    hidden = hidden_items(rows, (1, 2, 3))
    assert hidden.mean() == pytest.approx(0.3, abs=0.01)
    some = np.random.default_rng(1).permutation(rows)[:500]
    assert (hidden_items(some, (1, 2, 3)) == hidden[some]).all()
    for other in ((1, 2, 4), (1, 3, 3), (2, 2, 3)):
        assert (hidden_items(rows, other) & hidden).mean() == pytest.approx(0.09, abs=0.01)


def test_what_cannot_be_trained_on_is_said(tmp_path):
    where = place(tmp_path)
    with pytest.raises(InvariantError, match="no prod2vec model of 41 items"):
        train(SingleProcess(), where, tmp_path / "m", n_items=N_ITEMS + 1)
    with pytest.raises(UserError, match="no such model"):
        train(SingleProcess(), (where[0], str(tmp_path / "nowhere")), tmp_path / "m")
    with pytest.raises(UserError, match="diverged"):
        train(SingleProcess(), where, tmp_path / "m", dataclasses.replace(SMALL, learning_rate=1e38))
    (tmp_path / "alone").mkdir()
    alone = place(tmp_path / "alone", [[1], [2]])
    with pytest.raises(UserError, match="no pair of items"):
        train(SingleProcess(), alone, tmp_path / "m")
