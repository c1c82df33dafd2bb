"""Embeddings that begin with prod2vec's vectors: where, whether they learn, and in which order a night trains."""

import dataclasses

import pytest
import torch

from sparkrec.errors import UserError
from sparkrec.models.gru import train as gru
from sparkrec.models.gru.settings import GruConfig
from sparkrec.models.program import builds_on
from sparkrec.pipeline.nightly import Choice
from sparkrec.pipeline.stages import stage_names
from sparkrec.ranks.checkpoint import load_model, save_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import TrainConfig
from tests.models.gru.cases import on_threads, random_sessions, write_rows

N_ITEMS, WIDTH = 15, 4
CONFIG = GruConfig(
    layers=[5], embedding="separate", embedding_dim=WIDTH, lanes=4, n_sample=6, epochs=1, pretrained="prod2vec",
    dropout_embedding=0.0,
)  # fmt: skip
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def given(tmp_path):
    """A snapshot, and a prod2vec model whose items 0 and 7 have no vector; (snapshot, folder, unit vectors)."""
    manifest = write_rows(tmp_path / "s", random_sessions(20, N_ITEMS), 2, 4)
    vectors = torch.randn(N_ITEMS, WIDTH, generator=torch.Generator().manual_seed(3))
    vectors[[0, 7]] = 0
    save_model(str(tmp_path / "p"), {"vectors": vectors}, {"n_items": N_ITEMS})
    return manifest.path, str(tmp_path / "p"), vectors / vectors.norm(dim=1, keepdim=True).clamp_min(1e-12)


def train(comm, path, model, config, pretrained):
    gru.train(comm, path, str(model), config, TrainConfig(device="cpu"), N_ITEMS, {}, None, pretrained)
    return load_model(str(model)) if comm.rank == 0 else None


@pytest.mark.parametrize("embedding", ["separate", "constrained"])
def test_embeddings_begin_with_the_unit_vectors_and_learn_on(given, tmp_path, embedding):
    path, pretrained, unit = given
    config = dataclasses.replace(CONFIG, embedding=embedding, layers=[WIDTH])
    still = dataclasses.replace(config, learning_rate=1e-12, momentum=0.0)
    begun, described = train(SingleProcess(), path, tmp_path / "still", still, pretrained)
    drawn, plain = train(SingleProcess(), path, tmp_path / "drawn", still, None)
    expected = torch.where((unit != 0).any(1, keepdim=True), unit, drawn["embedding"])
    assert torch.allclose(begun["embedding"], expected, atol=1e-6)
    assert described["pretrained"] == load_model(pretrained)[1]["weights_sha256"]
    assert plain["pretrained"] == ""
    learnt, _ = train(SingleProcess(), path, tmp_path / "learnt", config, pretrained)
    assert ((learnt["embedding"] - expected).abs().max(1).values > 1e-3).sum() >= N_ITEMS - 1


def test_frozen_embeddings_stay_and_the_rest_learns_on_any_number_of_ranks(given, tmp_path):
    path, pretrained, unit = given
    config = dataclasses.replace(CONFIG, pretrained_tuned=False)
    alone, _ = train(SingleProcess(), path, tmp_path / "m1", config, pretrained)
    there = (unit != 0).any(1)
    assert torch.equal(alone["embedding"][there], unit[there])
    before, _ = train(
        SingleProcess(), path, tmp_path / "m0", dataclasses.replace(config, learning_rate=1e-12), pretrained
    )
    assert all(not torch.allclose(alone[name], before[name]) for name in ("output", "bias", "gru.0.weight_ih"))
    for n, slot_bytes in enumerate((0, 1 << 20)):
        found = on_threads(2, train, path, tmp_path / f"m2{n}", config, pretrained, slot_bytes=slot_bytes)[0][0]
        assert torch.equal(found["embedding"], alone["embedding"])
        assert all(torch.allclose(found[name], alone[name], atol=1e-5) for name in alone)


def test_vectors_of_another_width_are_refused(given, tmp_path):
    path, pretrained, _ = given
    with pytest.raises(UserError, match="not as wide"):
        train(SingleProcess(), path, tmp_path / "m", dataclasses.replace(CONFIG, embedding_dim=3), pretrained)


def test_a_night_trains_what_others_begin_with_first():
    models = "models=[als,gru,prod2vec,session_neighbours,session_hybrid]"
    plain = load_config(None, [models])
    training = ["als", "gru", "prod2vec", "session_neighbours", "session_hybrid"]
    before, after = ["ingest", "index", "prepare"], ["evaluate", "topk", "maintain"]
    assert stage_names(plain) == [*before, *[f"train_{name}" for name in training], *after]
    config = load_config(None, [models, "gru.pretrained=prod2vec"])
    assert builds_on("session_hybrid", config) == ["prod2vec", "gru", "session_neighbours"]
    training = ["als", "prod2vec", "gru", "session_neighbours", "session_hybrid"]
    assert stage_names(config) == [*before, *[f"train_{name}" for name in training], *after]
    assert Choice(("topk", "train_gru", "train_prod2vec")).stages(config) == ["train_prod2vec", "train_gru", "topk"]
    assert Choice(first="train_gru").stages(config)[0] == "train_gru"
    assert "train_prod2vec" not in Choice(first="train_gru").stages(config)
