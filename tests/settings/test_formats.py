import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from sparkrec.errors import UserError
from sparkrec.settings.config import load_config
from sparkrec.settings.format_files import format_names, load_format
from sparkrec.settings.formats import Attribute, Feature

MINIMAL = {
    "readers": [{"kind": "csv"}],
    "item": {"columns": "i"},
    "ts": {"columns": "t", "unit": "s"},
    "event_type": {"default": "click"},
    "event_weights": {"click": 1},
}


def write(tmp_path, **changes):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **changes}))
    return str(path)


@pytest.mark.parametrize("name", format_names())
def test_every_shipped_format_loads_and_its_defaults_are_valid_configuration(name):
    fmt = load_format(name)
    assert fmt.name == name
    assert load_config(None, [f"logs.format={name}"]).logs.format == name


def test_the_four_promised_formats_are_shipped():
    assert {"reviews", "invoices", "sessions", "ratings"} <= set(format_names())


def test_cancellations_are_neither_purchases_nor_interactions():
    fmt = load_format("invoices")
    assert fmt.purchase_events == ("purchase",)
    assert fmt.event_weights == {"purchase": 1.0, "cancellation": 0.0}
    assert fmt.item_columns() == {"title": "string", "price": "double"}


def test_a_format_may_be_the_path_of_a_yaml_file(tmp_path):
    fmt = load_format(write(tmp_path, event_weights={"click": 2}))
    assert (fmt.name, fmt.item.columns, fmt.event_weights) == ("mine", ("i",), {"click": 2.0})


def test_a_multi_valued_feature_keeps_its_separator():
    assert load_format("ratings").item_features == (Feature("genres", "multi", "|", 4),)
    assert Attribute("year", ("title",), "int", r"\((\d{4})\)\s*$") in load_format("ratings").items_file.attributes


def test_ids_of_attribute_files_are_spelt_as_the_logs():
    assert load_format("sessions").items_file.id.normalize == load_format("sessions").item.normalize != ()


def test_every_example_of_the_documentation_is_a_format(tmp_path):
    text = (Path(__file__).parents[2] / "docs" / "formats.md").read_text(encoding="utf-8")
    examples = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    rest = {"readers": {"kind": "jsonl"}, "quantity": {"columns": "q"}}  # of those that show a few keys
    for example in examples:
        load_format(write(tmp_path, **{**rest, **yaml.safe_load(example)}))
    assert len(examples) > 5


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(
        UserError, match=r"unknown log format: logs.format=clicks .*invoices, .*ratings, .*reviews, .*sessions"
    ):
        load_format("clicks")


def test_a_missing_format_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no such log format file: .*none\.yaml"):
        load_format(str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"colums": 1}, "unknown key in log format: colums"),
        ({"readers": [{"kind": "csv", "seperator": ";"}]}, "unknown key in log format: seperator"),
        ({"readers": [{"kind": "xml"}]}, "kind = 'xml' .must be one of jsonl, python, csv"),
        ({"readers": [{"kind": "csv", "header": False}]}, "columns"),
        ({"readers": [{"kind": "csv", "header": "no"}]}, "must be bool"),
        ({"event_weights": {"click": "much"}}, "must be float"),
        ({"ts": {"columns": "t"}}, "ts.unit"),
        ({"item": {"unit": "s"}}, "lacks a key: columns"),
        ({"item": {"columns": "i", "normalize": "trimm"}}, "'trimm' .must be one of none, trim, nfc"),
        ({"item": {"columns": "i", "normalize": ["upper", "lower"]}}, "either upper or lower"),
        ({"timezone": "Europe/Londinium"}, "unknown time zone: Europe/Londinium"),
        ({"timezone": "Europe/London", "ts": {"columns": "t", "unit": "HH:mm[XXX]"}}, "with an offset or without"),
        (
            {"ts": {"columns": "t", "unit": "seconds"}},
            "'seconds' .must be one of s, ms, us, ns, day, iso, timestamp or a date",
        ),
        ({"ts": {"columns": "t", "unit": ["s", "iso", "ms"]}}, "one unit of numbers at most"),
        ({"ts": {"columns": "t", "unit": "day"}}, "ts.day_zero = None .must be given with unit: day"),
        ({"ts": {"columns": "t", "unit": "s", "day_zero": date(2020, 1, 1)}}, "must be left out"),
        ({"ts": {"columns": "t", "unit": "day", "day_zero": "2020-13-01"}}, "must be a date, YYYY-MM-DD"),
        ({"ts": {"columns": "t", "unit": "s", "plus": [{"columns": "u", "unit": "days"}]}}, "one of us, ms, s, min"),
        ({"ts": {"columns": "t", "unit": "iso", "cumulative": {"by": "u", "order": "n"}}}, "as it is cumulative"),
        ({"decimal": ",", "thousands": ","}, "thousands = ',' .must be another one than decimal"),
        ({"decimal": "1"}, "decimal = '1' .must be one character that is no part of a number"),
        ({"decimal": ",", "readers": [{"kind": "jsonl"}]}, "left as it is with other readers than csv"),
        ({"readers": [{"kind": "csv", "comment": "//"}]}, "readers.comment = '//' .must be one character of ASCII"),
        ({"missing_user": "drop"}, "missing_user"),
        ({"purchase_events": "buy"}, "'buy' .must be one of click"),
        ({"checks": [{"field": "price", "above": 0}]}, "checks.field"),
        ({"event_type": {"default": "click", "rules": [{"type": "click", "column": "x"}]}}, "starts_with, equals"),
        ({"item_features": [{"name": "brand"}]}, "a feature must be a declared attribute"),
        ({"title": "name"}, "title must be an attribute"),
        ({"order": ["row", "n"]}, "row alone, or columns"),
        ({"duplicates": "sum"}, "duplicates = 'sum' .must be one of drop, keep, add"),
        ({"duplicates": "keep", "event_id": {"columns": "id"}}, "drop, where an event_id tells events apart"),
        ({"impression_events": "click"}, "of no weight, no purchase and in no session"),
        ({"other_events": "drop"}, "other_events"),
        ({"explode": {"column": "x"}}, "explode.kind = 'structs' .must be text, for a CSV"),
        ({"explode": {"column": "x", "kind": "list"}}, "must be one of structs, array, text"),
        ({"explode": {"column": "x", "kind": "text", "suffix": "-[01]$"}}, "with one group"),
        ({"join": [{"readers": [{"kind": "csv"}], "key": "a", "their_key": ["b", "c"]}]}, "as many columns as key"),
    ],
)
def test_a_wrong_declaration_is_one_clear_line(tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        load_format(write(tmp_path, **changes))


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "\xff\xfe"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "x.yaml"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="log format"):
        load_format(str(path))
