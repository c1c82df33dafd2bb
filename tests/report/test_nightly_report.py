"""A night writes its report as its last act, after a failure too, and does not fail for want of it."""

import pytest

from sparkrec.config import load_config
from sparkrec.pipeline.nightly import Choice, run_nightly

pytestmark = pytest.mark.slow


@pytest.fixture
def place(night, tmp_path):
    """A copy of the night, which a test may change."""
    copy = night.copied_to(tmp_path / "warehouse")
    return copy


def run(spark, place, *settings):
    """The last stage of a night of one model, with its report."""
    config = load_config(None, place.settings("report.nightly=true", "models=[als]", *settings))
    return run_nightly(config, str(place.last), Choice(("topk",)), spark=spark)


def test_the_night_writes_its_report(spark, place):
    page = place.warehouse / "reports" / f"{place.last}.html"
    page.parent.write_text("a file where the folder should be")
    assert run(spark, place) == 0  # the report cannot be written, and the night is as good as without
    page.parent.unlink()
    assert run(spark, place) == 0
    text = page.read_text()
    assert f"<h1>Night of {place.last}<span" in text
    assert "later attempts that skipped it: 1" in text


def test_a_night_that_fails_says_so_in_its_report(spark, place):
    for file in (place.warehouse / "interactions").rglob("*.parquet"):
        file.write_bytes(b"not Parquet")
    with pytest.raises(Exception, match="interactions"):
        run(spark, place, "topk.k=4")
    text = (place.warehouse / "reports" / f"{place.last}.html").read_text()
    assert '<span class="state bad">failed</span>' in text
    assert "In stage topk: " in text
    assert "a table cannot be read" in text
