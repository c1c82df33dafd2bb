"""Checkpoints and models: whole, or not there."""

from pathlib import Path

import pytest
import torch

from sparkrec.errors import UserError
from sparkrec.ranks.checkpoint import (
    load_checkpoint,
    load_model,
    remove_checkpoints,
    save_checkpoint,
    save_model,
)
from sparkrec.storage import files


def save(path, epoch, key="k"):
    save_checkpoint(str(path), epoch, {"w": torch.full((3,), float(epoch))}, {"history": [epoch]}, key)


def test_the_newest_of_the_last_two_is_loaded(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert len(list(tmp_path.iterdir())) == 2
    epoch, tensors, state = load_checkpoint(str(tmp_path), "k")
    assert (epoch, tensors["w"].tolist(), state) == (3, [3.0] * 3, {"history": [3]})
    remove_checkpoints(str(tmp_path))
    assert load_checkpoint(str(tmp_path), "k") is None


@pytest.mark.parametrize("damage", [lambda b: b[:-5], lambda b: b"", lambda b: b[:-1] + b"\x01", lambda b: b"{" * 40])
def test_a_damaged_one_falls_back_to_the_one_before(tmp_path, damage):
    save(tmp_path, 1)
    save(tmp_path, 2)
    last = tmp_path / "checkpoint-00002.safetensors"
    last.write_bytes(damage(last.read_bytes()))
    assert load_checkpoint(str(tmp_path), "k")[0] == 1


def test_another_key_is_ignored(tmp_path):
    save(tmp_path, 1, "other")
    assert load_checkpoint(str(tmp_path), "k") is None


def test_an_unfinished_write_is_ignored(tmp_path):
    (tmp_path / "checkpoint-00009.safetensors.abc.tmp").write_bytes(b"half")
    assert load_checkpoint(str(tmp_path), "k") is None


def test_model_there_and_back(tmp_path):
    save_model(str(tmp_path / "m"), {"w": torch.arange(3)}, {"inputs": {"sessions": 4}})
    weights, model = load_model(str(tmp_path / "m"))
    assert weights["w"].tolist() == [0, 1, 2]
    assert model["inputs"] == {"sessions": 4}
    assert {p.name for p in (tmp_path / "m").iterdir()} == {"weights.safetensors", "model.json"}


def test_weights_of_another_model_are_refused(tmp_path):
    path = tmp_path / "m"
    save_model(str(path), {"w": torch.arange(3)}, {})
    described = (path / "model.json").read_bytes()
    save_model(str(path), {"w": torch.arange(4)}, {})
    (path / "model.json").write_bytes(described)
    with pytest.raises(UserError, match="damaged"):
        load_model(str(path))


def test_no_model(tmp_path):
    with pytest.raises(UserError, match="no such model"):
        load_model(str(tmp_path))


def test_files_on_uris_and_plain_paths(tmp_path):
    for base in (str(tmp_path / "a"), (tmp_path / "b").as_uri(), f"file:{tmp_path}/c d"):
        name = files.join(base, "x", "y.json")
        assert not files.exists(name)
        files.write_json(name, {"n": 1})
        files.write_json(name, {"n": 2})
        assert files.read_json(name) == {"n": 2}
        assert files.list_names(files.join(base, "x")) == ["y.json"]
        files.remove(base)
        assert not files.exists(base)
        assert files.list_names(base) == []
    assert not list(tmp_path.iterdir())


def test_file_errors_are_the_users(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        files.read_bytes(str(tmp_path / "none"))
    Path(tmp_path, "bad.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        files.read_json(str(tmp_path / "bad.json"))
    Path(tmp_path, "plain").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        files.write_bytes(str(tmp_path / "plain" / "x"), b"")
    with pytest.raises(UserError, match="is not supported"):
        files.exists("nosuch://x")
