"""What the tests of the two towers train on: users and items of two groups, in memory and on Spark."""

from datetime import datetime

import numpy as np
import pandas as pd

from sparkrec.models.two_tower.batches import sequences
from sparkrec.models.two_tower.examples import GROUP, example_order, examples, feature_layout, second_outputs
from sparkrec.models.two_tower.network import Feature
from sparkrec.models.two_tower.settings import TwoTowerConfig
from sparkrec.models.two_tower.step import prepare
from sparkrec.models.two_tower.train import TowerTask, tower_shape
from sparkrec.ranks.checkpoint import load_model
from sparkrec.ranks.comm import SingleProcess
from sparkrec.ranks.snapshot import write_snapshot
from sparkrec.settings.sections import TrainConfig

AS_OF = 40 * 86_400
CONFIG = TwoTowerConfig(
    dim=8, history_length=4, batch_size=64, epochs=3, learning_rate=0.1, temperature=0.2,
    windows_days=[1.0, 7.0], half_life_days=None, horizon_days=0.0, dropout=0.0, n_sample=0, hidden=[], logq=1.0,
)  # fmt: skip
USER_FEATURES = (Feature("group", 2, 1),)
ITEM_FEATURES = (Feature("genre", 3, 2),)
NIGHT = datetime(1970, 2, 10)


def checkerboard(n_users=60, n_items=40, n_events=12, seed=0):
    """Users and items of two groups; a user takes items of the own group."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(n_users), n_events)
    taken = [rng.permutation(np.arange(u % 2, n_items, 2))[:n_events] for u in range(n_users)]
    item = np.concatenate(taken)
    ts = rng.integers(0, AS_OF, len(user))
    return user, item, ts


def split(user, item, ts, n_files=4):
    """Whole users to files, as a snapshot has them."""
    files = {}
    for number in range(n_files):
        mine = user % n_files == number
        codes = (user[mine] % 3)[:, None]  # 0: unknown
        label = np.where(item[mine] % 3 == 0, np.nan, user[mine] % 5)
        files[number] = sequences(user[mine], item[mine], ts[mine], 1.0 + (item[mine] % 2), codes, label)
    return files


def item_codes(n_items):
    return np.stack([np.arange(n_items) % 4, np.arange(n_items) % 2], 1).astype(np.int32)


def material(config, user, item, ts, repeats=False):
    n_items = int(item.max()) + 1
    outputs = {"none": 0, "rating": 1, "event_type": 5}[config.second_head]
    shape = tower_shape(config, int(user.max()) + 1, n_items, USER_FEATURES, ITEM_FEATURES, outputs)
    codes = item_codes(n_items)
    return shape, prepare(
        SingleProcess(), split(user, item, ts), 4, shape, config, item_codes=codes, as_of=AS_OF, repeats=repeats
    )


def log(spark, user, item, ts):
    frame = pd.DataFrame({"user_idx": user.astype("int32"), "item_idx": item.astype("int32"), "s": ts.astype("int64")})
    return spark.createDataFrame(frame).selectExpr(
        "user_idx", "item_idx", "'buy' AS event_type", "timestamp_seconds(s) AS ts",
        "IF(item_idx % 3 = 0, NULL, double(user_idx % 5)) AS value", "bigint(null) AS event_order",
    )  # fmt: skip


def user_table(spark, n):
    code = "IF(id % 3 > 0, array(int(id % 3)), array()) AS group"
    return spark.range(n).selectExpr("int(id) AS user_idx", code)


def make_task(spark, folder, config, n_files=4):
    user, item, ts = checkerboard()
    features = user_table(spark, 60)
    layout = feature_layout(features, "user_idx")
    rows = examples(log(spark, user, item, ts), features, layout, config, {"buy": 1.0}, NIGHT)
    order = example_order(config)
    write_snapshot(rows, f"{folder}/snapshot", group=GROUP, order=order, n_files=n_files, inputs={"interactions": 1})
    return TowerTask(
        snapshot_path=f"{folder}/snapshot",
        model_path=f"{folder}/model",
        config=config,
        train=TrainConfig(snapshot_files=n_files, threads_per_rank=1, device="cpu"),
        n_users=60,
        n_items=40,
        user_features=layout,
        item_features=ITEM_FEATURES,
        item_codes=item_codes(40),
        as_of=AS_OF,
        repeats=False,
        meta={"model": "two_tower"},
        second_outputs=second_outputs(config, {"buy": 1.0}),
    )


def weights_of(task):
    return load_model(task.model_path)
