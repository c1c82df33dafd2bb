"""Training that is cut off: the next attempt goes on from the last whole epoch, and the weights are the same."""

import shutil

import pytest
import torch

from sparkrec.config import load_config
from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.training.checkpoint import load_model
from tests.nights import make_place

pytestmark = pytest.mark.slow

SETTINGS = ("models=[gru]", "gru.epochs=40", "evaluation.refit=false", "train.ranks=2", "gru.dropout_hidden=0.2")


@pytest.fixture(scope="module")
def prepared(spark, tmp_path_factory):
    """A warehouse whose next stage is the training, and the weights of a training that nothing disturbed."""
    place = make_place(tmp_path_factory.mktemp("prepared"))
    config, choice = load_config(None, place.settings(*SETTINGS)), Choice(only=("ingest", "index", "prepare"))
    assert run_nightly(config, place.last.isoformat(), choice, spark=spark) == 0
    whole = type(place)(place.log, place.warehouse.parent / "whole", place.fmt, place.first, place.days)
    shutil.copytree(place.warehouse, whole.warehouse)
    whole.run(spark, whole.last, *SETTINGS, "train.ranks=1")  # the ranks do not change the model
    return place, load_model(str(model_of(whole)))[0]


def model_of(place):
    return place.warehouse / "models" / "gru" / place.last.isoformat() / "holdout"


@pytest.fixture
def place(prepared, tmp_path):
    given = prepared[0]
    shutil.copytree(given.warehouse, tmp_path / "warehouse")
    return type(given)(given.log, tmp_path / "warehouse", given.fmt, given.first, given.days)


def resumed_after(process):
    """The epochs after which it went on."""
    return [int(line.split("epoch=")[1]) for line in process.lines if "checkpoint_resumed" in line]


def test_training_that_was_cut_off_goes_on_from_the_last_whole_epoch(start_night, prepared, place):
    running = start_night(place, *SETTINGS)
    running.wait_until(lambda: (model_of(place) / "checkpoint-00003.safetensors").exists())
    ranks = [process for process in running.below("gloo_exec_fn") if process.name().startswith("python")]
    assert len(ranks) == 2  # their shells left out
    ranks[1].kill()  # a worker dies
    assert running.end() == 2, running.tail()
    assert running.said("sparkrec: training workers ended before they were done")
    assert not running.said("Traceback"), running.tail()
    assert not (model_of(place) / "model.json").exists()

    again = start_night(place, *SETTINGS)
    again.wait_for("checkpoint_resumed")
    assert resumed_after(again)[0] >= 3
    reached = resumed_after(again)[0] + 2
    again.wait_until(lambda: (model_of(place) / f"checkpoint-{reached:05d}.safetensors").exists())
    again.kill()  # the driver dies, and the newest checkpoint is damaged
    newest = max(model_of(place).glob("checkpoint-*.safetensors"))
    data = bytearray(newest.read_bytes())
    data[-100] ^= 0xFF
    newest.write_bytes(data)

    last = start_night(place, *SETTINGS)
    assert last.end() == 0, last.tail()
    assert last.said("checkpoint_damaged")
    assert resumed_after(last)[0] >= reached - 1
    ours, weights = load_model(str(model_of(place)))[0], prepared[1]
    assert ours.keys() == weights.keys()
    for name, value in weights.items():
        assert torch.allclose(ours[name], value, atol=2e-3), name
