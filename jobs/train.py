r"""Trains one model of the night.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark-defaults.conf \
        --jars "$(sparkrec jars)" --py-files dist/sparkrec.zip \
        jobs/train.py --model als --conf conf/cluster.yaml --run-date 2011-12-09 \
        logs.path=/data/log logs.format=invoices warehouse.path=/data/warehouse

The settings are those of ``sparkrec nightly``; see docs/cluster.md.
"""

import sys

from sparkrec.pipeline.job import run_training

if __name__ == "__main__":
    sys.exit(run_training(__doc__))
