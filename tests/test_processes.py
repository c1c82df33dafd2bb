import gc
import importlib
import sys
import zipfile

from sparkrec.processes import begin_task


def test_a_task_freezes_what_is_there_and_imports_from_zip_files_go_on(tmp_path, monkeypatch):
    path = tmp_path / "shipped.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("shipped_one.py", "value = 1")
        archive.writestr("shipped_two.py", "value = 2")
    monkeypatch.syspath_prepend(str(path))
    before = gc.get_freeze_count()
    try:
        assert importlib.import_module("shipped_one").value == 1
        assert str(path) in sys.path_importer_cache
        begin_task()
        assert gc.get_freeze_count() > before
        assert str(path) not in sys.path_importer_cache  # so nobody lists it anew
        assert importlib.import_module("shipped_two").value == 2
    finally:
        gc.unfreeze()
