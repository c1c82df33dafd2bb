"""Training that is cut off: the next attempt goes on from the last whole epoch, and the weights are the same."""

import shutil

import pytest
import torch

from sparkrec.ranks.checkpoint import load_model

pytestmark = pytest.mark.slow

ALONE = "--only=train_gru"
# No ELU: at a score of 0 its slope jumps, and a rounding there becomes a difference that later epochs carry on.
SETTINGS = ("models=[gru]", "gru.epochs=40", "evaluation.refit=false", "train.ranks=2", "gru.dropout_hidden=0.2",
            "gru.elu=0.0")  # fmt: skip


def untrained(night, warehouse):
    """A copy of the night's warehouse without its GRU."""
    place = night.copied_to(warehouse)
    shutil.rmtree(place.warehouse / "models" / "gru")
    return place


@pytest.fixture
def place(night, tmp_path):
    return untrained(night, tmp_path / "warehouse")


@pytest.fixture
def undisturbed(spark, night, tmp_path):
    """The weights of a training that nothing disturbed."""
    whole = untrained(night, tmp_path / "whole")
    alone = (*SETTINGS, "train.ranks=1")  # the ranks do not change the model
    assert whole.run(spark, whole.last, *alone, only=("train_gru",)) == 0
    return load_model(str(model_of(whole)))[0]


def model_of(place):
    return place.warehouse / "models" / "gru" / place.last.isoformat() / "holdout"


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
    start_night, undisturbed, place
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
    assert_weights(place, undisturbed)
