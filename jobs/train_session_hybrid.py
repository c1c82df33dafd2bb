r"""Puts the GRU and the session neighbours of the night together.

    spark-submit --master spark://HOST:7077 --properties-file conf/spark-defaults.conf \
        --jars "$(sparkrec jars)" --py-files dist/sparkrec.zip \
        jobs/train_session_hybrid.py --conf conf/cluster.yaml --run-date 2011-12-09 \
        logs.path=/data/log logs.format=invoices warehouse.path=/data/warehouse

The settings are those of ``sparkrec nightly``; see docs/cluster.md.
"""

import sys

from sparkrec.pipeline.job import run_job

if __name__ == "__main__":
    sys.exit(run_job(["train_session_hybrid"], __doc__))
