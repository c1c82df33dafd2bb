"""docs/models.md is what the models say of themselves."""

from dataclasses import fields
from pathlib import Path

import pytest

from sparkrec.models import OURS
from sparkrec.models.described import as_markdown
from sparkrec.settings.config import Config

PAGE = Path(__file__).parent.parent.parent / "docs" / "models.md"


def test_the_page_is_written_from_the_models():
    assert PAGE.read_text(encoding="utf-8") == as_markdown(Config()), "sparkrec models > docs/models.md"


@pytest.mark.parametrize("model", OURS, ids=lambda model: model.name)
def test_every_model_says_what_it_suits_what_it_costs_and_which_settings_matter(model):
    assert model.suits
    assert model.cost
    meant = {one.name for one in fields(getattr(Config(), model.name)) if one.metadata["meaning"]}
    assert 2 <= len(model.matter) <= 3
    assert meant >= set(model.matter)
