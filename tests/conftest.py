"""Fixtures that the whole suite shares."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sparkrec.settings.sections import SparkConfig
from tests.quick import LOCAL

SHARED = ("later", "products")  # warehouses that stand on the shared night, made once for all files that look at them
NIGHTS = {"night", *SHARED}


@pytest.hookimpl(wrapper=True)  # wrappers come first: xdist looks for the groups in a hook of its own
def pytest_collection_modifyitems(items):
    """With several test processes (-n) the tests of a file stay in one, and so do the files that share a warehouse.

    The shared night itself binds no files together: half of the suite stands on it, so each process makes its own.
    Groups that take long come first, so that no process has a long one left when the others are done. Whoever looks
    at a night waits for it to be made: such tests are none of ``make check``.
    """
    shared = {item.path: name for name in SHARED for item in items if name in item.fixturenames}
    group = {item.path: shared.get(item.path, str(item.path)) for item in items}
    for item in items:
        if NIGHTS & set(item.fixturenames):
            item.add_marker(pytest.mark.integration)
    slow, seconds = (
        {group[item.path] for item in items if item.get_closest_marker(mark)} for mark in ("slow", "integration")
    )
    items.sort(key=lambda item: [group[item.path] not in first for first in (SHARED, slow, seconds)])
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group[item.path]))
    return (yield)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_node_collection_finished(node, ids):
    """Ends a run whose groups are ignored, as pytest 9.2 and pytest-xdist 3.8 do together.

    Every process would make every night and every cluster for itself: the suite would pass, in twice the time.
    """
    if node.config.getoption("dist") == "loadgroup" and not all("@" in name for name in ids):
        pytest.exit("pytest-xdist names no groups: this version of it does not go with this pytest's", returncode=4)


@pytest.fixture
def one_thread():
    """For tiny tensors: threads would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def spark():
    """The one Spark session of the suite."""
    from sparkrec.spark.session import build_session

    sys.stderr.flush()
    conf = {
        **LOCAL,
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
    }
    session = build_session(SparkConfig(master="local[2]", app_name="sparkrec-tests", conf=conf))
    yield session
    session.stop()


@pytest.fixture
def generated_code(spark):
    """Spark as it ships: a million rows take longer to read than their code to compile."""
    quick = {
        name: spark.conf.get(name) for name in LOCAL if name.startswith(("spark.sql.codegen", "spark.sql.adaptive"))
    }
    for name in quick:
        spark.conf.unset(name)
    yield
    for name, value in quick.items():
        spark.conf.set(name, value)


@pytest.fixture
def real_data():
    """Folder of real logs named by SPARKREC_REAL_LOGS; the test is skipped where there is none."""
    folder = os.environ.get("SPARKREC_REAL_LOGS", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real logs: set SPARKREC_REAL_LOGS")
    return Path(folder)


@pytest.fixture(scope="session")
def night(spark, tmp_path_factory):
    """A whole night of three models on invoices, as a ``tests.nights.Place``. Tests must not change it."""
    from tests.nights import make_place

    place = make_place(tmp_path_factory.mktemp("night"))
    assert place.run(spark, place.last, "report.nightly=true") == 0
    return place


@pytest.fixture(scope="session")
def products(spark, night, tmp_path_factory):
    """The same night with the other models, as a ``tests.nights.Place``. Tests must not change it."""
    from tests.nights import PRODUCTS

    place = replace(night.copied_to(tmp_path_factory.mktemp("products") / "warehouse"), more=PRODUCTS)
    assert place.run(spark, place.last) == 0
    return place
