r"""Tries settings of a model on the night before the hold-out begins, on the cluster.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark-defaults.conf \
        --jars "$(sparkrec jars)" --py-files dist/sparkrec.zip \
        jobs/search.py --conf conf/cluster.yaml --run-date 2011-12-09 --model als \
        --try 'als.rank=[32, 64]' --try 'prior.als=[0.0, 0.7]' \
        logs.path=/data/log logs.format=invoices warehouse.path=/data/warehouse

The settings are those of ``sparkrec search``; see docs/cluster.md.
"""

import sys

from sparkrec.cli import main

if __name__ == "__main__":
    sys.exit(main(["search", *sys.argv[1:]]))
