r"""Trains the hybrid, on candidates of the models that are trained.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark-defaults.conf \
        --jars "$(sparkrec jars)" --py-files dist/sparkrec.zip \
        jobs/train_hybrid.py --conf conf/cluster.yaml --run-date 2011-12-09 \
        logs.path=/data/log logs.format=invoices warehouse.path=/data/warehouse

The settings are those of ``sparkrec nightly``; see docs/cluster.md.
"""

import sys

from sparkrec.pipeline.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(["train_hybrid"], __doc__))
