"""What the server tells of layers, units and frames, against the network asked directly."""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
import torch
from PIL import Image

from innervision import images, network
from innervision.studio import Settings, packed
from innervision.studio.cache import Cache
from innervision.studio.looking import rounded
from innervision.studio.settings import Opening

OURS = {"X-Innervision": "1"}
NET = "guest.py-build"
CLASSES = ("ant", "bee", "cat", "dog")

ODD = '''
import torch
from torch import nn

class Faulty(nn.Module):
    """Answers NaN and infinity in some channels, and the same everywhere in one."""
    def forward(self, x):
        y = torch.cat([x, x[:, :1] * 0 + 5], 1)
        y[:, 0, 0, 0] = float("nan")
        y[:, 1, 0, 0] = float("inf")
        return y

def faulty():
    return nn.Sequential(Faulty(), nn.Conv2d(4, 2, 1))

def square():
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 196, 3))

def failing():
    class Failing(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 2, 1)
        def forward(self, x):
            if x.shape[-1] == 40:
                raise RuntimeError("no forties\\nhere")
            if x.shape[-1] == 41:
                raise SystemExit(3)
            return self.a(x)
    return Failing()

def slashed():
    torch.manual_seed(0)
    found = nn.Sequential()
    for name in ("a/b", "a/b/1", "50%/2F", "a b?#"):
        found.add_module(name, nn.Conv2d(3, 3, 1))
    return found

def broken():
    raise KeyError("weights")
'''


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("odd") / "odd.py"
    file.write_text(ODD)
    return str(file)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, guest: str, odd: str, serve: Any) -> Iterator[Any]:
    openings = (
        Opening(name=guest, options={"mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}, classes=CLASSES),
        *(Opening(name=f"{odd}:{name}") for name in ("faulty", "square", "failing", "broken", "slashed")),
    )
    settings = Settings(runs=tmp_path_factory.mktemp("looking"), networks=openings, threads=1)
    with serve(settings) as found:
        found.headers.update(OURS)
        yield found


@pytest.fixture(scope="module")
def direct(guest: str) -> network.Network:
    return network.load(guest, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2)).frozen()


def looked(studio: Any, net: str = NET, size: int | None = 48, picture: str = "sample-chelsea") -> Any:
    answer = studio.post("/api/look", json={"net": net, "picture": picture, "size": size})
    assert answer.status_code == 200, answer.text
    return answer.json()


def photograph(size: int = 48) -> torch.Tensor:
    picture = images.read("sample:chelsea")
    return picture.tensor(images.fit(picture.height, picture.width, longest=size))


def test_a_layer_has_an_address_whatever_it_is_called(studio: Any, odd: str) -> None:
    """Its / and % are escaped twice: servers take %2F for the / that divides an address."""
    own = network.load(f"{odd}:slashed").frozen()
    key = looked(studio, "odd.py-slashed")["key"]
    for name in ("a/b", "a/b/1", "50%/2F", "a b?#"):
        part = quote(name.replace("%", "%25").replace("/", "%2F"), safe="")
        with torch.no_grad():
            maps = own.features(photograph(), (name,))[name][0].numpy()
        assert told(studio.get(f"/api/look/{key}/{part}"), "u1").shape[0] == 3
        plane = told(studio.get(f"/api/look/{key}/{part}/1"), "<f4")
        assert np.allclose(plane.squeeze(), maps[1], atol=1e-5), name
        unit = f"/api/unit/odd.py-slashed/{part}/1"
        assert studio.get(unit).json()["layer"] == name
        assert studio.get(f"{unit}/map?key={key}").headers["content-type"] == "image/png"


def told(answer: Any, kind: str) -> np.ndarray[Any, Any]:
    shape = tuple(int(part) for part in answer.headers["x-shape"].split(","))
    return np.frombuffer(answer.content, kind).reshape(shape)


def test_the_state_lists_what_there_is(studio: Any) -> None:
    state = studio.get("/api/state").json()
    assert [one["id"] for one in state["networks"]][:2] == [NET, "odd.py-faulty"]
    assert state["networks"][0]["source"] == "guest" and state["networks"][0]["classes"] == 4
    cat = next(one for one in state["samples"] if one["id"] == "sample-chelsea")
    assert (cat["width"], cat["height"]) == (451, 300) and state["threads"] == 1
    assert "/" not in json.dumps(state["networks"]), "no path goes out"


def test_a_network_is_told_with_its_graph(studio: Any) -> None:
    told = studio.get(f"/api/networks/{NET}").json()
    layers = {layer["name"]: layer for layer in told["layers"]}
    assert layers["block.bend"]["inputs"] == ["pool", "block.left", "block.right"]
    assert layers["block.right"]["window"] == {"size": [12, 12], "stride": [2, 2], "start": [-5, -5]}
    assert layers["stem"]["shape"] == [8, 224, 224] and layers["fc"]["shape"] == [4, 1, 1]
    assert told["classes"] == list(CLASSES) and told["fits"] == "any" and told["output"] == "fc"


def test_a_look_tells_what_each_channel_answers(studio: Any, direct: network.Network) -> None:
    look = looked(studio)
    assert look["view"] == {"width": 48, "height": 32, "box": [0, 0, 451, 300]}
    with torch.no_grad():
        want = direct.features(photograph(), ["stem", "block.bend", "fc"])
    layers = {layer["name"]: layer for layer in look["layers"]}
    for name in ("stem", "block.bend"):
        maps = want[name][0]
        assert (layers[name]["channels"], layers[name]["h"], layers[name]["w"]) == tuple(maps.shape)
        for field, value in (
            ("lo", maps.amin((1, 2))),
            ("hi", maps.amax((1, 2))),
            ("mean", maps.mean((1, 2))),
        ):
            assert layers[name][field] == pytest.approx(value.tolist(), rel=1e-5, abs=1e-6)
        assert layers[name]["dead"] == int((maps == 0).all(2).all(1).sum())
    shares = want["fc"][0].softmax(0)
    best = int(shares.argmax())
    assert look["predictions"][0] == {
        "label": CLASSES[best],
        "p": pytest.approx(float(shares[best]), rel=1e-4),
        "class": best,
    }
    assert [one["p"] for one in look["predictions"]] == sorted(
        (one["p"] for one in look["predictions"]), reverse=True
    )


@pytest.mark.parametrize("cell", [64, 7])
def test_a_sprite_is_every_channel_averaged_over_areas(
    studio: Any, direct: network.Network, cell: int
) -> None:
    key = looked(studio)["key"]
    answer = studio.get(f"/api/look/{key}/stem", params={"cell": cell})
    got = told(answer, "u1").astype(float)
    with torch.no_grad():
        maps = direct.features(photograph(), ["stem"])["stem"][0].double().numpy()
    h, w = (32, 48) if cell == 64 else (5, 7)
    want = np.empty((8, h, w))
    for y in range(h):
        for x in range(w):  # each cell: the mean of the values it covers, those on its edges too
            rows = slice(32 * y // h, -(-32 * (y + 1) // h))
            columns = slice(48 * x // w, -(-48 * (x + 1) // w))
            want[:, y, x] = maps[:, rows, columns].mean((1, 2))
    lo, hi = (edge[:, None, None] for edge in (maps.min((1, 2)), maps.max((1, 2))))
    assert got.shape == want.shape
    assert np.abs(got - 255 * (want - lo) / (hi - lo)).max() < 0.51


def test_small_sprites_come_with_the_look(studio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes there is what the JSON and the sprites one by one say; who finds no room is left out."""
    plain = looked(studio)
    # of the first two there is room for one alone, and for the last
    monkeypatch.setattr(packed, "ROOM", 8 * 32 * 48 + 4)
    asked = {"net": NET, "picture": "sample-chelsea", "size": 48, "sprites": ["act", "stem", "fc", "fc"]}
    answer = studio.post("/api/look", json=asked)
    assert answer.headers["content-type"] == "application/octet-stream"
    (length,) = struct.unpack_from("<I", answer.content)
    look = json.loads(answer.content[4 : 4 + length])
    at = 4 + length
    for layer, want in zip(look["layers"], plain["layers"], strict=True):
        for field in ("lo", "hi", "mean"):
            got = np.frombuffer(answer.content, "<f4", layer["channels"], at)
            at += 4 * layer["channels"]
            assert np.allclose(got, want.pop(field), rtol=1e-5)
    came = [layer["name"] for layer in look["layers"] if "sprite" in layer]
    assert came == ["act", "fc"], "in the layers' order"
    for layer in look["layers"]:
        if "sprite" in layer:
            h, w = layer.pop("sprite")
            size = layer["channels"] * h * w
            alone = studio.get(f"/api/look/{look['key']}/{layer['name']}")
            assert alone.headers["x-shape"] == f"{layer['channels']},{h},{w}"
            assert alone.content == answer.content[at : at + size]
            at += size
    assert at == len(answer.content)
    assert look == plain
    refused = studio.post("/api/look", json=asked | {"sprites": ["nowhere"]})
    assert refused.status_code == 404 and "nowhere" in refused.json()["detail"]


def test_a_channels_values_come_as_they_are(studio: Any, direct: network.Network) -> None:
    key = looked(studio)["key"]
    got = told(studio.get(f"/api/look/{key}/block.bend/5"), "<f4")
    with torch.no_grad():
        want = direct.features(photograph(), ["block.bend"])["block.bend"][0, 5]
    assert np.allclose(got[0], want.numpy(), atol=1e-6)
    assert studio.get(f"/api/look/{key}/block.bend/8").status_code == 404


def test_what_is_known_is_not_sent_again(studio: Any) -> None:
    key = looked(studio)["key"]
    for path in (
        f"/api/look/{key}/stem", f"/api/look/{key}/stem/0", "/api/pictures/sample-chelsea?side=64",
        f"/api/unit/{NET}/stem/0/map?key={key}",
    ):  # fmt: skip
        first = studio.get(path)
        again = studio.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert again.status_code == 304 and not again.content, path
        other = studio.get(path, headers={"If-None-Match": '"another"'})
        assert other.status_code == 200 and other.content == first.content
    tags = {
        studio.get(f"/api/look/{key}/{rest}").headers["etag"]
        for rest in ("stem", "act", "stem?cell=8", "stem/0")
    }
    assert len(tags) == 4, "each answer has a tag of its own"


def test_a_key_lasts_when_its_answers_do_not(tmp_path: Path, guest: str, serve: Any) -> None:
    settings = Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1)
    looks: list[Any] = []
    for _ in range(2):  # another server: nothing is kept but the picture, and the key's own words
        with serve(settings) as studio:
            studio.headers.update(OURS)
            key = looks[0]["key"] if looks else looked(studio, size=32)["key"]
            looks.append(studio.get(f"/api/look/{key}").json())
    for look in looks:
        look.pop("seconds")
        for layer in look["layers"]:
            layer.pop("etag")
    assert looks[0] == looks[1]


def test_what_is_kept_stays_within_bounds(tmp_path: Path, guest: str, serve: Any) -> None:
    settings = Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1, cache=2**20, most=2**21)
    with serve(settings) as studio:
        studio.headers.update(OURS)
        names = [one["id"] for one in studio.get("/api/state").json()["samples"]]
        keys = [looked(studio, size=64, picture=name)["key"] for name in names]
        assert 0 < studio.app.state.desk.kept <= 2**20
        assert studio.get(f"/api/look/{keys[0]}/stem").status_code == 200, "made again"
        answer = studio.post("/api/look", json={"net": NET, "picture": names[0], "size": 1024})
        assert answer.status_code == 413 and "smaller" in answer.json()["detail"]


def test_a_square_is_cut_where_the_network_wants_one(studio: Any, odd: str) -> None:
    net = studio.get("/api/networks/odd.py-square").json()
    assert (net["fits"], net["side"], net["largest"]) == ("fixed", 16, 16)
    look = looked(studio, "odd.py-square", 200)
    assert look["size"] == 16 and look["view"] == {"width": 16, "height": 16, "box": [75, 0, 375, 300]}
    assert len(look["predictions"]) == 3 and look["predictions"][0]["label"].startswith("class ")


def test_values_that_are_no_numbers_are_told_as_such(studio: Any) -> None:
    look = looked(studio, "odd.py-faulty", 16)
    layer = look["layers"][0]
    assert layer["faulty"] == 2
    assert all(math.isfinite(value) for name in ("lo", "hi", "mean") for value in layer[name])
    maps = told(studio.get(f"/api/look/{look['key']}/0"), "u1")
    assert maps.shape[0] == 4 and not maps[3].any(), "a channel of one value is drawn as 0"
    unit = studio.get("/api/unit/odd.py-faulty/0/0", params={"key": look["key"]})
    assert unit.status_code == 200, unit.text


def test_a_guest_that_fails_is_told_in_a_sentence(studio: Any) -> None:
    for size, word in ((40, "no forties here"), (41, "SystemExit")):
        answer = studio.post(
            "/api/look", json={"net": "odd.py-failing", "picture": "sample-chelsea", "size": size}
        )
        assert answer.status_code == 400 and word in answer.json()["detail"]
    assert looked(studio, "odd.py-failing", 32)["layers"]
    answer = studio.get("/api/networks/odd.py-broken")
    assert answer.status_code == 409 and "KeyError" in answer.json()["detail"]


# Pictures


def test_a_picture_is_sent_shown_and_removed(studio: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    sent = studio.post("/api/pictures", content=buffer.getvalue(), headers={"X-Name": "caf%C3%A9.png"}).json()
    assert (sent["name"], sent["width"], sent["height"]) == ("café.png", 60, 40)
    whole = studio.get(f"/api/pictures/{sent['id']}")
    assert whole.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(whole.content))), pixels), (
        "a small one is lossless"
    )
    small = Image.open(io.BytesIO(studio.get(f"/api/pictures/{sent['id']}?side=30").content))
    assert small.size == (30, 20)
    assert studio.get("/api/state").json()["pictures"][0] == sent
    assert looked(studio, picture=sent["id"], size=32)["view"]["box"] == [0, 0, 60, 40]
    assert studio.delete(f"/api/pictures/{sent['id']}").status_code == 204
    for path in (f"/api/pictures/{sent['id']}", f"/api/look/{NET}~{sent['id']}~32/stem"):
        assert studio.get(path).status_code == 404


def test_pictures_are_there_after_a_restart(tmp_path: Path, guest: str, serve: Any) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (9, 7), (1, 2, 3)).save(buffer, "PNG")
    settings = Settings(runs=tmp_path, networks=(Opening(name=guest),), threads=1)
    ids: list[str] = []
    for _ in range(2):
        with serve(settings) as studio:
            studio.headers.update(OURS)
            if not ids:
                ids.append(studio.post("/api/pictures", content=buffer.getvalue()).json()["id"])
            assert [one["id"] for one in studio.get("/api/state").json()["pictures"]] == ids


# Units


def test_a_unit_is_told(studio: Any, direct: network.Network) -> None:
    key = looked(studio)["key"]
    unit = studio.get(f"/api/unit/{NET}/block.right/3", params={"key": key}).json()
    with torch.no_grad():
        maps = direct.features(photograph(), ["block.right"])["block.right"][0, 3]
    row, column = divmod(int(maps.argmax()), maps.shape[1])
    assert unit["activation"]["at"] == [row, column]
    assert unit["activation"]["max"] == pytest.approx(float(maps.max()), rel=1e-4)
    left, top, right, bottom = unit["activation"]["box"]
    seen = [max(0, 2 * column - 5), max(0, 2 * row - 5), min(48, 2 * column + 7), min(32, 2 * row + 7)]
    assert [left, top, right, bottom] == pytest.approx(
        [value * scale for value, scale in zip(seen, (451 / 48, 300 / 32) * 2, strict=True)], abs=1
    )
    assert unit["channels"] == 8 and unit["kind"] == "Conv2d" and not unit["index"] and unit["history"] == []
    assert studio.get(f"/api/unit/{NET}/fc/2").json()["label"] == "cat"


def test_neighbours_are_those_that_answer_alike(studio: Any, direct: network.Network) -> None:
    unit = studio.get(f"/api/unit/{NET}/stem/2").json()
    rows = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        picture = images.read(f"sample:{name}")
        image = picture.tensor(images.fit(picture.height, picture.width, longest=112))
        with torch.no_grad():
            maps = direct.features(image, ["stem"])["stem"]
        size = images.fit(*maps.shape[2:], longest=28)
        rows.append(torch.nn.functional.adaptive_avg_pool2d(maps, size)[0].flatten(1).numpy())
    want = np.corrcoef(np.concatenate(rows, 1))[2]
    order = [n for n in np.argsort(-want) if n != 2]
    assert [one["channel"] for one in unit["neighbours"]] == order
    assert [one["similarity"] for one in unit["neighbours"]] == pytest.approx(want[order].tolist(), abs=2e-4)


@pytest.mark.parametrize("what", ["deconvnet", "cam", "map"])
def test_a_unit_is_drawn(studio: Any, what: str) -> None:
    key = looked(studio)["key"]
    answer = studio.get(f"/api/unit/{NET}/block.bend/1/{what}", params={"key": key})
    assert answer.status_code == 200, answer.text
    assert Image.open(io.BytesIO(answer.content)).size == (48, 32)
    assert studio.get(f"/api/unit/{NET}/block.bend/1/{what}").status_code == 400, "of which picture?"


def test_what_excites_a_unit_is_shown_as_it_comes_about(studio: Any) -> None:
    path = f"/api/unit/{NET}/stem/1/excite?size=24&steps=6"
    assert studio.get(f"/api/unit/{NET}/stem/1/excited?size=24&steps=6").status_code == 404
    events = [block.split("\n") for block in studio.get(path).text.strip().split("\n\n")]
    named = [
        (e[0].removeprefix("event: "), json.loads(e[1].removeprefix("data: "))) for e in events if len(e) == 2
    ]
    assert named[0][0] == "frame" and named[0][1]["step"] == 1 and named[0][1]["of"] == 6
    assert named[0][1]["image"].startswith("data:image/jpeg;base64,")
    assert named[-2][1]["step"] == 6
    assert named[-1][0] == "done"
    picture = studio.get(f"/api/unit/{NET}/stem/1/{named[-1][1]['url']}")
    assert Image.open(io.BytesIO(picture.content)).size == (24, 24)
    again = studio.get(path).text
    assert "event: frame" not in again and "event: done" in again, "what was made comes at once"


# Live


def test_a_frame_answers_as_a_look_does(studio: Any, direct: network.Network) -> None:
    pixels = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    answer = studio.post(f"/api/live?net={NET}&layer=stem&size=32", content=pixels.tobytes())
    assert answer.status_code == 200, answer.text
    (length,) = struct.unpack("<I", answer.content[:4])
    head = json.loads(answer.content[4 : 4 + length])
    maps = np.frombuffer(answer.content[4 + length :], "u1").reshape(head["channels"], head["h"], head["w"])
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        want = direct.features(image, ["stem"])["stem"][0].numpy()
    assert maps.shape == want.shape and head["layer"] == "stem"
    assert head["lo"] == pytest.approx(want.min((1, 2)).tolist(), rel=1e-4)
    lo, hi = (np.array(head[name])[:, None, None] for name in ("lo", "hi"))
    assert np.abs(maps / 255 * (hi - lo) + lo - want).max() < 0.6 / 255 * float((hi - lo).max())
    assert {one["label"] for one in head["predictions"]} == set(CLASSES)
    assert studio.post(f"/api/live?net={NET}&layer=stem&size=32", content=b"123").status_code == 400


# What is kept


def test_a_cache_keeps_within_its_bytes_what_was_used_last() -> None:
    cache: Cache[str, str] = Cache(100)
    for key in "abc":
        cache.put(key, key.upper(), 30)
    assert cache.get("a") == "A"
    cache.put("d", "D", 30)
    assert (cache.get("b"), cache.get("a"), cache.get("d"), cache.size) == (None, "A", "D", 90)
    cache.put("a", "AA", 10)
    assert cache.size == 70 and len(cache) == 3
    cache.put("e", "E", 101)
    assert cache.get("e") == "E" and len(cache) == 1, "the latest is kept, alone"
    cache.put("f", "F", 50)
    assert cache.get("e") is None and cache.size == 50
    cache.make_room(60)
    assert cache.size <= 40
    cache.drop(lambda key: True)
    assert cache.size == 0


def test_numbers_keep_six_digits() -> None:
    values = np.array([0.0, -1.23456789, 123456.789, 9.87654321e-12, 3.3e38, -4.5e-40])
    assert rounded(values) == pytest.approx([float(f"{value:.6g}") for value in values], rel=1e-12)
