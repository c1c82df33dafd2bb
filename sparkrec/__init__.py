"""sparkrec: nightly recommender training on Spark, with PyTorch workers launched by Horovod."""

__version__ = "0.1.0"
