import pytest

from tests.storage import servers


@pytest.fixture(scope="session")
def s3_server():
    with servers.s3() as server:
        yield server


@pytest.fixture(scope="session")
def hdfs_server(tmp_path_factory):
    with servers.hdfs(tmp_path_factory.mktemp("hdfs")) as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch):
    """The S3 server, with this process as a client."""
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(params=["local", "s3", "hdfs"])
def root(request, tmp_path):
    """A folder of its own on each kind of storage."""
    if request.param == "local":
        return str(tmp_path)
    server = request.getfixturevalue("s3" if request.param == "s3" else "hdfs_server")
    return f"{server.root}/{tmp_path.name}"
