"""Training that is cut off: the next attempt goes on from the last whole epoch, and the weights are the same."""

import pytest
import torch

from sparkrec.config import load_config
from sparkrec.pipeline.nightly import Choice, run_nightly
from sparkrec.training.checkpoint import load_model
from tests.nights import make_place

pytestmark = pytest.mark.slow

ALONE = "--only=train_gru"
# No ELU: at a score of 0 its slope jumps, and a rounding there becomes a difference that later epochs carry on.
SETTINGS = ("models=[gru]", "gru.epochs=40", "evaluation.refit=false", "train.ranks=2", "gru.dropout_hidden=0.2",
            "gru.elu=0.0")  # fmt: skip


@pytest.fixture(scope="module")
def prepared(spark, tmp_path_factory):
    """A warehouse whose next stage is the training, and the weights of a training that nothing disturbed."""
    place = make_place(tmp_path_factory.mktemp("prepared"))
    config, choice = load_config(None, place.settings(*SETTINGS)), Choice(only=("ingest", "index", "prepare"))
    assert run_nightly(config, place.last.isoformat(), choice, spark=spark) == 0
    whole, trained = place.copied_to(place.warehouse.parent / "whole"), Choice(only=("train_gru",))
    undisturbed = load_config(None, whole.settings(*SETTINGS, "train.ranks=1"))  # the ranks do not change the model
    assert run_nightly(undisturbed, whole.last.isoformat(), trained, spark=spark) == 0
    return place, load_model(str(model_of(whole)))[0]


def model_of(place):
    return place.warehouse / "models" / "gru" / place.last.isoformat() / "holdout"


@pytest.fixture
def place(prepared, tmp_path):
    return prepared[0].copied_to(tmp_path / "warehouse")


def checkpoints(place):
    """Epochs of the checkpoints that are there, ascending; none before the first."""
    return sorted(int(path.stem.split("-")[1]) for path in model_of(place).glob("checkpoint-*.safetensors"))


def resumed_after(process):
    """The epoch after which it went on."""
    (line,) = [line for line in process.lines if "checkpoint_resumed" in line]
    return int(line.split("epoch=")[1].split()[0])


def assert_weights(place, expected):
    ours = load_model(str(model_of(place)))[0]
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.allclose(ours[name], value, atol=1e-4), name


def test_a_killed_rank_ends_the_night_with_a_line_and_the_next_goes_on_past_a_damaged_checkpoint(
    start_night, prepared, place
):
    running = start_night(place, ALONE, *SETTINGS)
    running.wait_until(lambda: max(checkpoints(place), default=0) >= 3)
    ranks = [process for process in running.below("gloo_exec_fn") if process.name().startswith("python")]
    assert len(ranks) == 2  # their shells left out
    ranks[1].kill()
    assert running.end() == 2, running.tail()
    assert running.said("sparkrec: training workers ended before they were done")
    assert not running.said("Traceback"), running.tail()
    assert not (model_of(place) / "model.json").exists()

    before, newest = checkpoints(place)[-2:]
    assert newest >= 3
    damaged = model_of(place) / f"checkpoint-{newest:05d}.safetensors"
    data = bytearray(damaged.read_bytes())
    data[-100] ^= 0xFF
    damaged.write_bytes(data)

    again = start_night(place, ALONE, *SETTINGS)
    assert again.end() == 0, again.tail()
    assert again.said("checkpoint_damaged")
    assert resumed_after(again) == before
    assert_weights(place, prepared[1])
