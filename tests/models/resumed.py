"""Trainings that were broken off, and what they go on to."""

import dataclasses

import pytest
import torch

from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess


def goes_on(module, task, folder):
    """A training that stopped after its first epoch makes the others alone, and the model of one that did not stop.

    Args:
        module: Has ``train(comm, task)`` and ``run_epoch(comm, state, data, epoch)``.
        task: One that has been trained.
        folder: Where the other model may lie.
    """
    again = dataclasses.replace(task, model_path=f"{folder}/again")
    run_epoch, epochs = module.run_epoch, []

    def noted(comm, state, data, epoch, last=None):
        if epoch == last:
            raise KeyboardInterrupt
        epochs.append(epoch)
        return run_epoch(comm, state, data, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "run_epoch", lambda *given: noted(*given, last=2))
        with pytest.raises(KeyboardInterrupt):
            module.train(SingleProcess(), again)
        patch.setattr(module, "run_epoch", noted)
        module.train(SingleProcess(), again)
    assert epochs == [1, *range(2, 1 + len(load_model(task.model_path)[1]["history"]))]
    expected, found = load_model(task.model_path)[0], load_model(again.model_path)[0]
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, msg=name)
