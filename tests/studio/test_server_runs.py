"""Networks that runs have trained: their history, and the pictures that excite their units most."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from innervision import images, network, saved
from innervision.learn import checkpoints
from innervision.see import backward
from innervision.see.pictures import open_pictures
from innervision.see.target import Target
from innervision.see.units import top_images
from innervision.studio import Settings
from innervision.studio.settings import Opening

OURS = {"X-Innervision": "1"}
RUN = "run-little"


def little(seed: int) -> network.Network:
    torch.manual_seed(seed)
    module = torch.nn.Sequential()
    module.add_module("conv", torch.nn.Conv2d(3, 4, 3, padding=1))
    module.add_module("relu", torch.nn.ReLU())
    return network.wrap(module.eval(), name="little", input_size=16, classes=())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs: a network with two epochs kept, and an index of its top images."""
    folder = tmp_path_factory.mktemp("runs")
    source = folder.parent / "module.py"
    source.write_text(
        "import torch\n\ndef build():\n"
        "    module = torch.nn.Sequential()\n"
        "    module.add_module('conv', torch.nn.Conv2d(3, 4, 3, padding=1))\n"
        "    module.add_module('relu', torch.nn.ReLU())\n    return module\n"
    )
    saved.save(little(2), folder / "little", net=f"{source}:build")
    for epoch in (0, 1):
        checkpoints.keep(little(epoch).module, folder / "little", epoch)
    data = folder.parent / "data"
    data.mkdir()
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(pixels).save(data / f"{number:02}.png")
    own = network.load(str(folder / "little")).frozen()
    index = folder / "top/index.safetensors"
    assert [*top_images(own, open_pictures((data,), size=16), ("relu",), index=index)]
    card = {"inputs": [{"role": "data", "source": str(data), "sha256": ""}]}
    (folder / "top/run.json").write_text(json.dumps(card))
    return folder


@pytest.fixture(scope="module")
def studio(runs: Path, guest: str, serve: Any) -> Iterator[Any]:
    with serve(Settings(runs=runs, networks=(Opening(name=guest),), threads=1)) as found:
        found.headers.update(OURS)
        yield found


def key(studio: Any, net: str = RUN) -> str:
    return studio.post("/api/look", json={"net": net, "picture": "sample-coffee", "size": 32}).json()["key"]


def test_what_a_run_has_trained_is_offered(studio: Any) -> None:
    listed = {one["id"]: one for one in studio.get("/api/state").json()["networks"]}
    assert listed[RUN]["input_size"] == 16 and listed[RUN]["source"] == "run little"
    told = studio.get(f"/api/networks/{RUN}").json()
    assert [layer["name"] for layer in told["layers"]] == ["conv", "relu"]


def test_a_units_history_is_shown(studio: Any) -> None:
    looked = key(studio)
    unit = studio.get(f"/api/unit/{RUN}/relu/1", params={"key": looked}).json()
    assert unit["history"] == ["0", "1"]
    drawn: dict[str | None, bytes] = {}
    for epoch in (None, "0", "1"):
        query = {"key": looked} | ({} if epoch is None else {"epoch": epoch})
        answer = studio.get(f"/api/unit/{RUN}/relu/1/deconvnet", params=query)
        assert answer.status_code == 200, answer.text
        drawn[epoch] = answer.content
    assert len(set(drawn.values())) == 3
    picture = images.read("sample:coffee")
    image = picture.tensor(images.fit(picture.height, picture.width, longest=32))
    want = backward.deconvnet(little(1).frozen(), image, Target("relu", 1)).map
    got = np.asarray(Image.open(io.BytesIO(drawn["1"])))
    assert np.array_equal(got, images.to_bytes(backward.show(want, beyond=0.001)))
    for epoch in ("7", "..", "x"):
        query = {"key": looked, "epoch": epoch}
        assert studio.get(f"/api/unit/{RUN}/relu/1/map", params=query).status_code == 404


def test_top_images_come_from_the_index_of_the_network(studio: Any) -> None:
    unit = studio.get(f"/api/unit/{RUN}/relu/2").json()
    assert unit["index"] and not studio.get(f"/api/unit/{RUN}/conv/2").json()["index"]
    for what in ("top", "top-deconvnet"):
        answer = studio.get(f"/api/unit/{RUN}/relu/2/{what}")
        assert answer.status_code == 200, answer.text
        assert Image.open(io.BytesIO(answer.content)).width > 100
    assert not studio.get("/api/unit/guest.py-build/act/2").json()["index"], "of another network"
    assert studio.get("/api/unit/guest.py-build/act/2/top").status_code == 404


def test_a_network_that_was_trained_on_is_opened_anew(studio: Any, runs: Path) -> None:
    before = studio.get(f"/api/look/{key(studio)}").json()
    folder = runs / "little"
    card = saved.card_of(str(folder))
    assert card is not None
    saved.save(little(5), folder, net=card.net)
    written = (folder / "model.safetensors").stat().st_mtime + 5
    os.utime(folder / "model.safetensors", (written, written))
    after = studio.get(f"/api/look/{before['key']}").json()
    assert after["layers"][0]["hi"] != before["layers"][0]["hi"]
    assert after["layers"][0]["etag"] != before["layers"][0]["etag"]
    assert not studio.get(f"/api/unit/{RUN}/relu/2").json()["index"], "the index is of other weights"
