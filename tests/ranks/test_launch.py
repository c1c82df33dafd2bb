"""Real Horovod workers on one, two and three ranks: the same model, and clear errors."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sparkrec.errors import NothingToTrain, UserError
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.launch import _results, pick_device, run_ranks, task_slots
from sparkrec.settings.sections import TrainConfig
from tests.ranks.launch_cases import CONFIGS, collectives

HERE = Path(__file__).parent


def test_one_rank_needs_no_launcher(spark):
    before = torch.get_num_threads()
    (found,) = run_ranks(spark, collectives, (3.0,), TrainConfig(threads_per_rank=1))
    torch.set_num_threads(before)
    assert found["rank"] == [0, 1, 0, 1]
    assert found["gradient"] == [18.0, 18.0]
    assert found["threads"] == 1


def test_too_few_task_slots_are_said_before_anything_starts(spark):
    slots = task_slots(spark)
    assert slots == 2
    with pytest.raises(UserError, match=r"train\.ranks=4, task slots=2"):
        run_ranks(spark, collectives, (3.0,), TrainConfig(ranks=4))


def test_a_missing_gpu_is_said():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    from sparkrec.ranks.comm import SingleProcess

    assert pick_device(SingleProcess(), TrainConfig()).type == "cpu"
    with pytest.raises(UserError, match="no CUDA device"):
        pick_device(SingleProcess(), TrainConfig(device="cuda"))


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What the program in launch_cases found in a local[3] of its own, and its folder."""
    folder = tmp_path_factory.mktemp("launched")
    # The workers unpickle the cases by name.
    path = os.pathsep.join([str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
    program = [sys.executable, "-c", f"from tests.ranks import launch_cases; launch_cases.main({str(folder)!r})"]
    done = subprocess.run(program, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), folder, done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_collectives_on_real_workers(launched):
    found, _, _ = launched
    for ranks in (1, 2, 3):
        everyone = found[f"collectives{ranks}"]
        assert [r["rank"] for r in everyone] == [[i, ranks, i, ranks] for i in range(ranks)]
        for i, r in enumerate(everyone):
            assert r["shared"] == (ranks == 2)
            assert r["sum"] == [ranks, ranks * (ranks - 1) // 2]
            assert r["gathered"] == list(range(ranks))
            assert r["broadcast"] == [ranks - 1]
            assert ("unequal shapes" in r["unequal"]) == (ranks > 1)
            weight = sum(range(1, ranks + 1))  # of the losses that a row is part of
            assert r["gradient"] == [2 * 9 * (i + 1) * weight] * 2


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_model_is_the_same_on_one_two_and_three_workers(launched):
    found, folder, _ = launched
    for name, config in CONFIGS.items():
        expected, described = load_model(f"{folder}/{name}1")
        assert described["sessions"] == 40
        losses = [h["loss"] for h in found["train1"][0][name]]
        assert len(losses) == config.epochs
        for ranks in (2, 3):
            assert len(found[f"train{ranks}"]) == ranks
            for histories in found[f"train{ranks}"]:
                assert [h["loss"] for h in histories[name]] == pytest.approx(losses, rel=1e-5)
            weights, _ = load_model(f"{folder}/{name}{ranks}")
            assert all(torch.allclose(weights[n], expected[n], atol=1e-4) for n in expected), name


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_errors_of_workers_are_one_clear_line(launched):
    found, _, stderr = launched
    errors = found["errors"]
    assert errors["fails_on_rank_1"]["kind"] == "InvariantError"
    assert errors["fails_on_rank_1"]["text"] == "rank 1 lost rows"
    assert errors["dies_on_rank_1"]["kind"] == "UserError"
    assert "training workers ended" in errors["dies_on_rank_1"]["text"]
    assert "137" in errors["dies_on_rank_1"]["text"]
    assert all(e["seconds"] < 60 for e in errors.values())
    assert found["slots"]["kind"] == "UserError"
    assert "train.ranks=4, task slots=3" in found["slots"]["text"]
    assert "Py4JJavaError" not in stderr
    assert found["signals"] == [True, True]  # Horovod takes none: the program hears that it is to end


def test_what_a_user_can_mend_keeps_its_kind_on_the_way_from_the_ranks():
    for kind, fault in (("UserError", UserError), ("NothingToTrain", NothingToTrain)):
        with pytest.raises(UserError) as raised:
            _results([("done", 1), (kind, ("no pairs", "there", "more events"))])
        assert (type(raised.value), str(raised.value)) == (fault, "no pairs: there (more events)")
