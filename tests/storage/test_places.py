"""A path leads Spark, Python and the readers to the same place, or is refused."""

import os

import pytest

from sparkrec.errors import UserError
from sparkrec.settings.sections import StorageConfig
from sparkrec.storage.access import environment, spark_conf, stores_of
from sparkrec.storage.places import place_of


@pytest.mark.parametrize(
    ("path", "store", "spark", "inside", "reader"),
    [
        ("/data/w h", "local", "/data/w h", "/data/w h", "/data/w h"),
        ("/data/a=b/ü/", "local", "/data/a=b/ü", "/data/a=b/ü", "/data/a=b/ü"),
        ("file:/data/w", "local", "file:///data/w", "/data/w", "/data/w"),
        ("file:///data/w%20h", "local", "file:///data/w h", "/data/w h", "/data/w h"),
        ("dbfs:/data/w/", "local", "dbfs:/data/w", "/dbfs/data/w", "/dbfs/data/w"),
        ("/Volumes/main/rec/w", "local", "/Volumes/main/rec/w", "/Volumes/main/rec/w", "/Volumes/main/rec/w"),
        ("s3://lake/w//h/", "s3", "s3a://lake/w/h", "w/h", "s3://lake/w/h"),
        ("S3A://lake/a=b/ü x", "s3", "s3a://lake/a=b/ü x", "a=b/ü x", "s3://lake/a=b/ü x"),
        ("s3a://lake", "s3", "s3a://lake", "", "s3://lake"),
        ("gs://lake/w", "gcs", "gs://lake/w", "w", "gs://lake/w"),
        ("abfss://c@a.dfs.core.windows.net/w", "azure", *["abfss://c@a.dfs.core.windows.net/w", "w"], "abfss://c@a.dfs.core.windows.net/w"),
        ("hdfs://nn:8020/w/", "hdfs", "hdfs://nn:8020/w", "/w", "hdfs://nn:8020/w"),
    ],
)  # fmt: skip
def test_one_place_for_spark_python_and_readers(path, store, spark, inside, reader):
    place = place_of(path)
    assert (place.store, place.uri, place.inside, place.reader_uri) == (store, spark, inside, reader)
    assert place_of(place.uri) == place


def test_relative_paths_count_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert place_of("w/../v/").uri == f"{tmp_path}/v"


def test_databricks_mount_is_told_to_spark_by_its_scheme(monkeypatch):
    assert place_of("/dbfs/w").uri == "/dbfs/w"
    monkeypatch.setitem(os.environ, "DATABRICKS_RUNTIME_VERSION", "15.4")
    assert (place_of("/dbfs/w").uri, place_of("/dbfs/w").reader_uri) == ("dbfs:/w", "/dbfs/w")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("oss://lake/w", "storage oss: is not supported"),
        ("wasbs://c@a.blob.core.windows.net/w", "abfss://CONTAINER@ACCOUNT"),
        ("s3n://lake/w", "write s3a://"),
        ("s3:/lake/w", "names no bucket"),
        ("hdfs:///w", "names no namenode"),
        ("s3a://lake/../other", "a path with .."),
        ("file://host/w", "a file of another host"),
    ],
)
def test_what_cannot_be_reached_by_all_is_refused(path, told):
    with pytest.raises(UserError, match="(?s)" + told.replace(".", r"\.")):
        place_of(path)


def test_storage_settings_reach_spark_and_python_alike():
    config = StorageConfig(endpoint="http://minio:9000", region="eu-x")
    given = {"AWS_SECRET_ACCESS_KEY": "hunter2"}
    python = environment(config, given)
    assert python == {
        "AWS_ENDPOINT_URL": "http://minio:9000",
        "AWS_ALLOW_HTTP": "true",
        "AWS_REGION": "eu-x",
        "AWS_DEFAULT_REGION": "eu-x",
    }
    conf = spark_conf(config, ["s3"], given | python)
    assert conf["spark.hadoop.fs.s3a.endpoint"] == "http://minio:9000"
    assert conf["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert conf["spark.hadoop.fs.s3a.path.style.access"] == "true"
    assert conf["spark.executorEnv.AWS_ENDPOINT_URL"] == "http://minio:9000"
    assert "hunter2" not in str(conf) + str(python)
    assert spark_conf(config, stores_of(["/w", None, ""]), given) == {}


def test_the_environment_is_as_good_as_the_section():
    given = {"AWS_ENDPOINT_URL": "https://store:1"}
    assert environment(StorageConfig(), given) == {
        **given,
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    public = StorageConfig(anonymous=True, path_style=False)
    assert environment(public, {}) == {"AWS_SKIP_SIGNATURE": "true", "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": "true"}
    assert "Anonymous" in spark_conf(public, ["s3"], {})["spark.hadoop.fs.s3a.aws.credentials.provider"]
