"""How storage is reached: the configuration's ``storage`` section as each library takes it.

Python's libraries (obstore, delta-rs) take it from the environment, as they do credentials; Hadoop from Spark's
settings. Secrets are in neither the section nor what is made of it: they come from the environment or the platform.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

from sparkrec.settings.sections import StorageConfig
from sparkrec.storage.places import GCS, S3, place_of

ENDPOINT, REGION, PROFILE = "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_PROFILE"
_REGIONS = (REGION, "AWS_DEFAULT_REGION")
_S3A = "spark.hadoop.fs.s3a"
_PROVIDERS = {
    "anonymous": "org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider",
    "profile": "software.amazon.awssdk.auth.credentials.ProfileCredentialsProvider",
}


def stores_of(paths: Iterable[str | None]) -> frozenset[str]:
    """The kinds of storage that paths lead to (``storage.places``).

    Raises:
        UserError: A scheme that is not supported.
    """
    return frozenset(place_of(path).store for path in paths if path)


def reach(config: StorageConfig) -> None:
    """Sets this process's environment, and so that of the processes it starts, as the configuration says."""
    os.environ.update(environment(config, os.environ))


def environment(config: StorageConfig, given: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that obstore and delta-rs read, but for secrets.

    Sources: object_store's ``AmazonS3ConfigKey`` and delta-rs' page "Writing to S3".

    Args:
        config: The section.
        given: The environment so far.
    """
    found: dict[str, str] = {}
    endpoint = config.endpoint or given.get(ENDPOINT)
    region = config.region or next(
        (given[name] for name in _REGIONS if given.get(name)), "us-east-1" if endpoint else None
    )
    if endpoint:
        found[ENDPOINT] = endpoint
        if endpoint.startswith("http://"):
            found["AWS_ALLOW_HTTP"] = "true"
    if region:
        found |= dict.fromkeys(_REGIONS, region)
    if config.path_style is not None:
        found["AWS_VIRTUAL_HOSTED_STYLE_REQUEST"] = "false" if config.path_style else "true"
    if not config.conditional_puts:
        found["AWS_S3_ALLOW_UNSAFE_RENAME"] = "true"  # of delta-rs: nobody else writes
    if config.anonymous:
        found["AWS_SKIP_SIGNATURE"] = "true"
    if config.profile:
        found[PROFILE] = config.profile
    return found


def spark_conf(config: StorageConfig, stores: Iterable[str], given: Mapping[str, str]) -> dict[str, str]:
    """Spark's settings for the kinds of storage in use: Hadoop's file systems, and the executors' environment.

    Sources: hadoop-aws 3.4 (``core-default.xml``), Google's Cloud Storage connector (``CONFIGURATION.md``).

    Args:
        config: The section.
        stores: Of ``storage.places``.
        given: The environment, with what :func:`environment` makes of it.
    """
    used = set(stores)
    found: dict[str, str] = {}
    if S3 in used:
        python = environment(config, given)
        found |= {f"spark.executorEnv.{name}": value for name, value in python.items()}
        endpoint, region = python.get(ENDPOINT), python.get(REGION)
        if endpoint:
            found[f"{_S3A}.endpoint"] = endpoint
            found[f"{_S3A}.connection.ssl.enabled"] = str(not endpoint.startswith("http://")).lower()
        if region:
            found[f"{_S3A}.endpoint.region"] = region
        found[f"{_S3A}.path.style.access"] = str(
            bool(endpoint) if config.path_style is None else config.path_style
        ).lower()
        provider = "anonymous" if config.anonymous else "profile" if config.profile else ""
        if provider:
            found[f"{_S3A}.aws.credentials.provider"] = _PROVIDERS[provider]
    if GCS in used:
        found["spark.hadoop.fs.gs.impl"] = "com.google.cloud.hadoop.fs.gcs.GoogleHadoopFileSystem"
        found["spark.hadoop.fs.AbstractFileSystem.gs.impl"] = "com.google.cloud.hadoop.fs.gcs.GoogleHadoopFS"
        found["spark.hadoop.fs.gs.auth.type"] = "APPLICATION_DEFAULT"
    return found
