"""A night writes its report as its last act, after a failure too, and does not fail for want of it."""

import pytest

pytestmark = pytest.mark.slow

REPORT = "report.nightly=true"


def page(place):
    return place.warehouse / "reports" / f"{place.last}.html"


def test_the_night_writes_its_report(spark, night, tmp_path):
    assert f"<h1>Night of {night.last}<span" in page(night).read_text()
    place = night.copied_to(tmp_path / "warehouse")
    page(place).unlink()
    page(place).parent.rmdir()
    page(place).parent.write_text("a file where the folder should be")
    # The report cannot be written, and the night is as good as without.
    assert place.run(spark, place.last, REPORT, only=("topk",)) == 0
    page(place).parent.unlink()
    assert place.run(spark, place.last, REPORT, only=("topk",)) == 0
    assert "later attempts that skipped it: 2" in page(place).read_text()


def test_a_night_that_fails_says_so_in_its_report(spark, night, tmp_path):
    place = night.copied_to(tmp_path / "warehouse")
    for file in (place.warehouse / "interactions").rglob("*.parquet"):
        file.write_bytes(b"not Parquet")
    with pytest.raises(Exception, match="interactions"):
        place.run(spark, place.last, REPORT, "models=[als]", "topk.k=4", only=("topk",))
    text = page(place).read_text()
    assert '<span class="state bad">failed</span>' in text
    assert "In stage topk: " in text
    assert "a table cannot be read" in text
