"""Association rules of a retailer's invoices: this miner (and MLlib's FP-Growth) against mlxtend on the same baskets.

    python bench/rules.py --data online_retail [--min-support 0.001 --max-itemset 2 --min-confidence 0.1 --runs 1
                          --cores 2 --memory 3g --sides ours peer fp_growth --completion 2000]

The folder holds CSV files (``*.csv`` or ``*.csv.gz``) with InvoiceNo, StockCode, Quantity, InvoiceDate and UnitPrice.
An invoice is a basket; cancelled ones, and rows without a positive quantity and price, are left out. Long baskets are
cut as the settings say, for all sides alike. Each side goes from the baskets to its rules, and the rules are compared.
``--sides``: ours is the level-wise miner, fp_growth MLlib's, peer mlxtend, which needs a larger support to end soon.
``--completion`` then takes the last tenth of the invoices for a test: rules of the others complete so many of its
prefixes, and the metrics are printed. Ratio: mlxtend's median time by ours.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
from _measure import last_line, machine, say
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from sparkrec.evaluation.completion import CASE, completion_metrics, prefixes
from sparkrec.models.rules.itemsets import prepared
from sparkrec.models.rules.mining import complete, mine_rules
from sparkrec.models.rules.settings import RulesConfig
from sparkrec.settings.sections import SparkConfig
from sparkrec.spark.session import build_session

Rules = dict[tuple[tuple[int, ...], int], tuple[float, float, float, float]]
MEASURES = ("support", "confidence", "lift", "leverage")


def main() -> None:
    """Measures and prints."""
    options = arguments()
    config = RulesConfig(
        min_support=options.min_support, min_confidence=options.min_confidence, max_itemset=options.max_itemset
    )
    conf = {"spark.driver.memory": options.memory, "spark.sql.shuffle.partitions": str(4 * options.cores)}
    spark = build_session(SparkConfig(master=f"local[{options.cores}]", app_name="bench-rules", conf=conf))
    rows = read_baskets(options.data)
    baskets = spark.createDataFrame(rows).repartition(2 * options.cores, "basket_id").persist()
    say(f"{baskets.count()} baskets, {len(set().union(*rows['items']))} items; {machine()}")
    held = cut_baskets(baskets, config)
    sides: dict[str, Callable[[], Rules]] = {
        "ours": lambda: ours(baskets, config, "level_wise"),
        "peer": lambda: mlxtend_rules(held, len(rows), config),
        "fp_growth": lambda: ours(baskets, config, "fp_growth"),
    }
    times: dict[str, list[float]] = {name: [] for name in options.sides}
    found: dict[str, Rules] = {}
    for run in range(options.runs):
        for name in times:
            started = time.monotonic()
            found[name] = sides[name]()
            times[name].append(time.monotonic() - started)
            say(f"run {run + 1} {name}: {times[name][-1]:.2f} s, {len(found[name])} rules")
    first, *others = found.values()
    equal = all(same(first, rules) for rules in others)
    say("all sides have the same rules" if equal else "THE RULES DIFFER")
    quality = completion(spark, rows, config, options.completion) if options.completion else {}
    ours_s, peer_s = (statistics.median(times[name]) if name in times else None for name in ("ours", "peer"))
    ratio = peer_s / ours_s if peer_s and ours_s else None
    last_line(bench="rules", ours=ours_s, peer=peer_s, ratio=ratio, unit="s", runs=times, equal=equal,
              rules=len(first), completion=quality)  # fmt: skip
    spark.stop()


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--min-support", type=float, default=0.001)
    parser.add_argument("--min-confidence", type=float, default=0.1)
    for name, value in {"max-itemset": 2, "runs": 1, "cores": 2, "completion": 0}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", default="3g")
    parser.add_argument("--sides", nargs="+", choices=["ours", "peer", "fp_growth"], default=["ours", "peer"])
    return parser.parse_args()


def read_baskets(folder: str) -> pd.DataFrame:
    """``(basket_id string, items list of int)`` in order of time, the items numbered in order of their codes."""
    kinds = {"InvoiceNo": str, "StockCode": str}
    names = sorted(path for path in Path(folder).iterdir() if path.name.endswith((".csv", ".csv.gz")))
    columns = [*kinds, "Quantity", "InvoiceDate", "UnitPrice"]
    lines = pd.concat([pd.read_csv(path, dtype=kinds, usecols=columns) for path in names])
    bought = (lines["Quantity"] > 0) & (lines["UnitPrice"] > 0) & ~lines["InvoiceNo"].str.startswith("C")
    lines = lines[bought].sort_values("InvoiceDate", kind="stable")
    lines["item"] = lines["StockCode"].astype("category").cat.codes.astype("int32")
    lines = lines.drop_duplicates(["InvoiceNo", "item"])
    items = lines.groupby("InvoiceNo", sort=False)["item"].agg(list)
    return pd.DataFrame({"basket_id": items.index, "items": items.to_numpy()})


def cut_baskets(baskets: DataFrame, config: RulesConfig) -> list[list[int]]:
    """The frequent items of the baskets, as all sides mine them."""
    ready = prepared(baskets, config)
    held = [row["items"] for row in ready.rows.collect()]
    ready.rows.unpersist()
    return held


def ours(baskets: DataFrame, config: RulesConfig, miner: str) -> Rules:
    """The rules of a miner of this package."""
    rows = mine_rules(baskets, replace(config, miner=miner)).rules.collect()
    return {(tuple(r["antecedent"]), r["consequent"]): tuple(r[m] for m in MEASURES) for r in rows}  # type: ignore[misc]


def mlxtend_rules(held: list[list[int]], n_baskets: int, config: RulesConfig) -> Rules:
    """The rules of mlxtend with one item as the consequent."""
    from mlxtend.frequent_patterns import association_rules, fpgrowth
    from mlxtend.preprocessing import TransactionEncoder

    encoder = TransactionEncoder()
    table = pd.DataFrame(encoder.fit(held).transform(held), columns=encoder.columns_)  # dense: sparse ones take longer
    sets = fpgrowth(table, config.min_support, use_colnames=True, max_len=config.max_itemset)
    rules = association_rules(sets, n_baskets, metric="confidence", min_threshold=config.min_confidence)
    rules = rules[(rules["consequents"].map(len) == 1) & (rules["lift"] >= config.min_lift)]
    sides = zip(rules["antecedents"], rules["consequents"], strict=True)
    keys = [(tuple(sorted(map(int, a))), int(next(iter(c)))) for a, c in sides]
    return dict(zip(keys, rules[list(MEASURES)].itertuples(index=False, name=None), strict=True))


def same(some: Rules, others: Rules) -> bool:
    """Whether the rules are the same, and their measures to nine decimals."""
    return some.keys() == others.keys() and all(
        abs(a - b) < 1e-9 for sides, measures in some.items() for a, b in zip(measures, others[sides], strict=True)
    )


def completion(spark: SparkSession, rows: pd.DataFrame, config: RulesConfig, n: int) -> dict[str, float]:
    """Metrics of completing ``n`` prefixes of the last tenth of the baskets by rules of the others."""
    first = int(0.9 * len(rows))
    train, test = (spark.createDataFrame(part) for part in (rows[:first], rows[first:]))
    started = time.monotonic()
    rules = mine_rules(train, config).rules.persist()
    say(f"rules of nine tenths of the baskets: {rules.count()}, {time.monotonic() - started:.1f} s")
    cases = prefixes(test, longest=100)
    cases = cases.orderBy(F.xxhash64(CASE), CASE).limit(n).persist()
    started = time.monotonic()
    lists = complete(cases, rules, key=CASE, k=20).persist()
    say(f"{cases.count()} cases, {lists.count()} rows of lists, {time.monotonic() - started:.1f} s")
    values = completion_metrics(lists, cases, [10, 20], 1 + max(map(max, rows["items"])))
    return {f"{v.metric}@{v.k}" if v.k else v.metric: round(v.value, 4) for v in values}


if __name__ == "__main__":
    main()
