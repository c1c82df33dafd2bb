"""Configuration: what is shipped, which layer wins, what a mistake says."""

import dataclasses
import math
import re
import typing

import pytest
import yaml

from sparkrec.errors import UserError
from sparkrec.settings.checks import check
from sparkrec.settings.config import Config, conf_dir, config_dict, config_hash, load_config
from sparkrec.settings.sections import LogsConfig
from sparkrec.settings.setting import Bounds, check_declared, setting, walked
from sparkrec.settings.written import as_yaml

SETTINGS = [(dotted, one.metadata) for dotted, _, one in walked(Config())]
BOUNDS = {dotted: about["bounds"] for dotted, about in SETTINGS if about.get("bounds")}
CHOICES = {dotted: about["choices"] for dotted, about in SETTINGS if about.get("choices")}


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["two_tower.debias=1.5"], "two_tower.debias=1.5"),
        (["als.debias=0.5", "als.feedback=explicit"], "ratings cannot be weighted"),
        (["topk.index=faiss"], "topk.index=faiss"),
        (["topk.pass_mb=0"], "topk.pass_mb=0"),
        (["topk.exclude=[available]"], "topk.exclude"),
        (["models=[content2vec]"], "content2vec builds on prod2vec: models=['content2vec'] (add prod2vec to models)"),
        (["models=[gru,hybrid]"], "the hybrid blends models of the night that have lists for users"),
        (["models=[als,hybrid]", "hybrid.models=[two_tower]"], "(choose among als)"),
        (["models=[gru]", "user_groups.enabled=true", "user_groups.vectors=als"], "groups of users need a model's"),
        (["item_neighbours.bm25_b=1.5"], "item_neighbours.bm25_b=1.5"),
        (
            ["prod2vec.trainer=mllib"],
            "prod2vec.trainer=mllib (set prod2vec.lists=similar, or prod2vec.trainer=workers)",
        ),
        (["meta_prod2vec.lists=bought_together"], "meta_prod2vec.lists=bought_together"),
        (["rules.miner=apriori"], "rules.miner=apriori"),
        (["warehouse.lock_expiry_s=0"], "warehouse.lock_expiry_s=0"),
        (["models=[]"], "models=[]"),
        (["models=[als,als]"], "models=['als', 'als']"),
        (["evaluation.k=[0,20]"], "evaluation.k=[0, 20]"),
        (["ingest.min_ts=garbage"], "ingest.min_ts=garbage"),
        (["prepare.sessions.min_length=20", "prepare.sessions.max_length=10"], "prepare.sessions.min_length=20"),
        (["prepare.baskets.min_items=20", "prepare.baskets.max_items=10"], "prepare.baskets.max_items=10"),
    ],
)
def test_settings_that_cannot_be_are_one_line(settings, message):
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(None, settings)


def numbers(kind=Config, prefix=""):
    """Names and types of the settings that are numbers, alone or in lists."""
    for name, hint in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(hint):
            yield from numbers(hint, f"{prefix}{name}.")
        elif {int, float} & {hint, *typing.get_args(hint)}:
            yield f"{prefix}{name}", hint


def test_every_number_has_bounds_and_its_default_is_within_them():
    assert sorted(BOUNDS) == sorted(name for name, _ in numbers())
    check(Config())


def with_value(config, dotted, value):
    """The configuration with one setting changed, past all checks."""
    name, _, rest = dotted.partition(".")
    return dataclasses.replace(config, **{name: with_value(getattr(config, name), rest, value) if rest else value})


@pytest.mark.parametrize(("name", "hint"), list(numbers()))
def test_a_number_outside_of_its_bounds_is_refused_by_name(name, hint):
    bounds, whole = BOUNDS[name], int in {hint, *typing.get_args(hint)}
    step = 0 if bounds.beyond else 1 if whole else 0.001
    outside = [bounds.low - step, bounds.low - 7]
    if math.isfinite(bounds.high):
        outside += [bounds.high + (0 if bounds.short_of else 1), bounds.high + 7]
    outside += [] if whole else [math.nan, math.inf, -math.inf]
    values = [[value] for value in outside] if "List" in str(hint) else outside
    for value in [*values, *([[]] if bounds.least else [])]:
        with pytest.raises(UserError, match=re.escape(f"wrong configuration value: {name}={value} (")) as refused:
            check(with_value(Config(), name, value))
        assert bounds.said in str(refused.value)


def test_prod2vec_lists_what_goes_with_a_product_unless_it_is_asked_for_what_is_alike():
    config = load_config(None, [])
    of_both_logs = (config.prod2vec.lists, config.prod2vec.window, config.prod2vec.ns_exponent)
    assert of_both_logs == ("bought_together", 10, 0.0)  # between the exponents that were best
    assert config.meta_prod2vec.lists == "similar"  # side information tells what is alike
    assert load_config(None, ["prod2vec.trainer=mllib", "prod2vec.lists=similar"]).prod2vec.trainer == "mllib"


def test_base_yaml_is_written_from_the_settings_and_read_back_as_they_are():
    text = (conf_dir() / "base.yaml").read_text(encoding="utf-8")
    assert text == as_yaml(Config()), "sparkrec settings > conf/base.yaml"
    base, mine = dict(leaves(yaml.safe_load(text))), dict(leaves(config_dict(Config())))
    assert base == mine
    assert {key: type(value) for key, value in base.items()} == {key: type(value) for key, value in mine.items()}


def test_settings_are_written_as_yaml_reads_them():
    @dataclasses.dataclass(frozen=True)
    class Odd(Config):
        odd: list = setting(["yes", "1990-01-01", "a: b # c", 1e-7, True, None, ""], "of many kinds " * 12)

    read = yaml.safe_load(as_yaml(Odd()))["odd"]
    assert read == Odd().odd
    assert [type(value) for value in read] == [type(value) for value in Odd().odd]


def test_a_section_from_outside_has_its_bounds_and_choices():
    @dataclasses.dataclass(frozen=True)
    class Theirs:
        days: float = setting(3.0, "", Bounds(0, beyond=True))
        widths: list = setting([1], "", Bounds(1, least=1))
        by: str = setting("a", "", choices=["a", "b"])

    with_theirs = dataclasses.make_dataclass("WithTheirs", [("theirs", Theirs)], frozen=True)
    check_declared(with_theirs(Theirs()))
    for wrong, said in (
        ({"days": 0.0}, "days=0.0 (more than 0)"),
        ({"widths": []}, "widths=[]"),
        ({"by": "c"}, "by=c"),
    ):
        with pytest.raises(UserError, match=re.escape(f"theirs.{said}")):
            check_declared(with_theirs(Theirs(**wrong)))


def test_base_yaml_explains_every_setting():
    lines = (conf_dir() / "base.yaml").read_text(encoding="utf-8").splitlines()
    settings = [line for line in lines if ":" in line and not line.lstrip().startswith("#")]
    bare = [line for line in settings if not line.rstrip().endswith(":") and "#" not in line and "seed:" not in line]
    assert bare == []


def test_choices_are_named_beside_their_setting():
    lines = {}
    path = []
    for line in (conf_dir() / "base.yaml").read_text(encoding="utf-8").splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            depth = (len(line) - len(line.lstrip())) // 2
            path = [*path[:depth], line.split(":")[0].strip()]
            lines[".".join(path)] = line
    missing = [(key, c) for key, choices in CHOICES.items() for c in choices if c not in lines[key]]
    assert missing == []


@pytest.mark.parametrize("name", ["local", "cluster", "gpu"])
def test_environments_load(name):
    assert load_config(str(conf_dir() / f"{name}.yaml")) != load_config()  # it says something, all of it known


def test_later_layers_win(tmp_path):
    environment = tmp_path / "mine.yaml"
    environment.write_text("gru: {epochs: 7, lanes: 9}\nlogs: {format: invoices}\n")
    config = load_config(str(environment), ["gru.lanes=11", "models=[als]"])
    assert config.gru.epochs == 7  # the environment over the base
    assert config.gru.lanes == 11  # the command line over the environment
    assert config.models == ["als"]
    assert config.gru.learning_rate == Config().gru.learning_rate
    assert config.prepare.baskets.by == "basket_id"  # the format over the base
    config = load_config(str(environment), ["prepare.baskets.by=window"])
    assert config.prepare.baskets.by == "window"  # the command line over the format
    environment.write_text("logs: {format: invoices}\nprepare: {baskets: {by: window}}\n")
    assert load_config(str(environment)).prepare.baskets.by == "window"  # the environment over the format


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("gru.epoch=3", "unknown configuration key: gru.epoch in command line"),
        ("nothing.here=1", "unknown configuration key: nothing"),
        ("gru.epochs=many", "wrong configuration value: gru.epochs in command line"),
        ("gru.epochs=0", "wrong configuration value: gru.epochs=0 (at least 1)"),
        ("gru.layers=3", "wrong configuration value: gru.layers"),
        ("als.feedback=loud", "wrong configuration value: als.feedback=loud (one of explicit, implicit)"),
        ("models=[als,knn]", "unknown model: models=['als', 'knn'] (choose among als, gru, two_tower, "),
        ("train.ranks=5", "train.snapshot_files must be a multiple of train.ranks"),
        ("logs.format=nope", "unknown log format: logs.format=nope"),
        ("epochs", "setting is not key=value: epochs"),
        ("--epochs=3", "setting is not key=value: --epochs=3"),
        ("gru.layers=[1", "setting cannot be read: gru.layers=[1"),
    ],
)
def test_mistake_is_one_clear_line(setting, says):
    with pytest.raises(UserError) as caught:
        load_config(None, [setting])
    line = str(caught.value)
    assert line.startswith(says)
    assert "\n" not in line


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("gru: {epochs: 5", "configuration file is not valid YAML"),
        ("- a\n- b\n", "configuration file must be a mapping"),
        ("gru: 3\n", "wrong configuration value: /"),
        ("gru: {epoch: 5}\n", "unknown configuration key: gru.epoch"),
        (b"\xff\xfe\x00g", "configuration file is not valid YAML"),
    ],
)
def test_bad_file_is_one_clear_line(tmp_path, text, says):
    path = tmp_path / "bad.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError) as caught:
        load_config(str(path))
    assert str(caught.value).startswith(says)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="no such configuration file"):
        load_config(str(tmp_path / "none.yaml"))


def test_configuration_is_frozen_and_hash_follows_values():
    config = load_config()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.gru.epochs = 9
    assert config_hash(config.gru) == config_hash(load_config().gru)
    assert config_hash(config.gru) != config_hash(load_config(None, ["gru.epochs=6"]).gru)
    assert config_hash(config.gru, "x") != config_hash(config.gru, "y")


def test_empty_file_changes_nothing(tmp_path):
    path = tmp_path / "empty.yaml"
    path.write_text("")
    assert load_config(str(path)) == load_config()


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        (["gru.network=parallel"], "needs features"),
        (["gru.features=[text_tfidf]"], "only the parallel network"),
        (["gru.network=parallel", "gru.features=[a, b]", "gru.schedule=residual", "gru.epochs=2"], "fewer epochs"),
        (["gru.network=parallel", "gru.features=[a]", "gru.embedding=separate"], "constrained"),
        (["gru.network=parallel", "gru.features=[a]", "gru.warm_start=true"], "differ from night to night"),
        (["gru.network=hierarchical-all", "gru.embedding=none"], "constrained"),
        (["gru.bloom_rows=100", "gru.embedding=separate"], "constrained"),
        (["gru.bloom_rows=100", "gru.network=hierarchical-init"], "only the plain network"),
        (["gru.bloom_rows=3", "gru.bloom_hashes=4"], "more positions than rows"),
        (["gru.event_types=true", "gru.network=hierarchical-init"], "types of events"),
        (["gru.event_types=true", "gru.bloom_rows=100"], "types of events"),
        (["gru.network=deep"], "wrong configuration value"),
        (["gru.cell=lstm", "gru.network=hierarchical-init"], "LSTM"),
        (["gru.cell=lstm", "gru.embedding=none"], "LSTM"),
        (["gru.pretrained=prod2vec", "gru.embedding=none"], "no embeddings of single items"),
        (["gru.pretrained=prod2vec", "gru.bloom_rows=100"], "no embeddings of single items"),
        (["gru.pretrained=prod2vec", "gru.warm_start=true"], "differ from night to night"),
        (["gru.pretrained=prod2vec", "gru.pretrained_tuned=false"], "have to learn"),
    ],
)
def test_networks_that_do_not_go_together_are_refused(settings, what):
    with pytest.raises(UserError, match=what):
        load_config(None, settings)


def test_networks_that_do_go_together():
    settings = ["gru.network=parallel", "gru.features=[a, b]", "gru.schedule=residual", "gru.epochs=3"]
    assert load_config(None, settings).gru.features == ["a", "b"]
    assert load_config(None, ["gru.bloom_rows=4"]).gru.bloom_rows == 4


def test_logs_are_files_or_a_table():
    with pytest.raises(UserError, match=r"either files or a table: logs\.path=a, logs\.table=b\.c"):
        load_config(None, ["logs.path=a", "logs.table=b.c"])
    paths = {"a/b": True, "./b": True, "s3a://b/x": True, "file:/x": True, "b": False, "a.b.c": False, "a.`b/c`": False}
    assert {table: LogsConfig(table=table).table_is_path for table in paths} == paths
