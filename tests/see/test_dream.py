"""Oracles: steps and sizes worked by hand, brute force for guides, the whole gradient for the tiled one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from innervision.cli import cli
from innervision.cli.dream import read_wishes, usual
from innervision.errors import Diverged, Invalid
from innervision.machine import choose_device
from innervision.network import Network, wrap
from innervision.see.dream import Octaves, dream, film, stride, tiled_gradient, zoomed
from innervision.see.movie import Movie
from innervision.see.target import Target
from innervision.see.wishes import wished


class Small(nn.Sequential):
    """Two convolutions of 3x3: a receptive field of 5."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, padding=1)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)


class Classifier(nn.Sequential):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.fc = nn.Linear(4, 5)


def seeded(kind: type[nn.Module], dtype: torch.dtype = torch.float64, *, frozen: bool = True) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = wrap(kind().to(dtype), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return network.frozen(dtype) if frozen else network


def picture(h: int = 40, w: int = 36, *, seed: int = 1, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand((1, 3, h, w), generator=torch.Generator().manual_seed(seed), dtype=dtype)


def whole_gradient(network: Network, image: Tensor, wishes: Sequence[tuple[Target, float]]) -> Tensor:
    """Restate what is climbed: ½ mean a² of each layer, weighted, and its gradient by autograd."""
    x = image.clone().requires_grad_()
    total = torch.zeros((), dtype=x.dtype)
    for target, weight in wishes:
        assert target.layer is not None
        a = network.features(x, (target.layer,))[target.layer]
        a = a if target.channel is None else a[:, target.channel]
        total = total + weight * 0.5 * (a**2).mean()
    return torch.autograd.grad(total, x)[0]


# Octaves and steps


def test_octaves_by_hand() -> None:
    assert Octaves().sizes((384, 512)) == [(140, 187), (196, 261), (274, 366), (384, 512)]
    assert Octaves().sizes((60, 90)) == [(43, 64), (60, 90)]  # 60 / 1.96 would be below 32
    assert Octaves().sizes((16, 28)) == [(16, 28)]  # the picture itself, however small
    assert Octaves(count=1).sizes((384, 512)) == [(384, 512)]


def test_a_step_by_hand() -> None:
    gradient = torch.tensor([[[[1.0, -3.0], [0.0, 4.0]]]])  # mean|g| = 2
    expected = torch.tensor([[[[0.5, -1.5], [0.0, 2.0]]]]) * 1.5 / 255
    torch.testing.assert_close(stride(gradient, 1.5), expected)
    assert torch.equal(stride(torch.zeros(1, 3, 2, 2), 1.5), torch.zeros(1, 3, 2, 2))
    with pytest.raises(Diverged, match="no longer a number"):
        stride(torch.tensor([1.0, float("nan")]), 1.5)


def test_a_known_networks_dream_by_hand() -> None:
    # one channel, red: a = x, ½ mean a² over h·w has the gradient x/(h·w) in red alone; the step is
    # rate/255 · x / mean|x| with the mean over three channels
    conv = nn.Conv2d(3, 1, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    image = torch.full((1, 3, 2, 2), 0.2)
    image[0, 0] = torch.tensor([[0.1, 0.3], [0.2, 0.2]])
    how = Octaves(count=1, steps=1, rate=1.5, jitter=1)
    (frame,) = dream(wrap(nn.Sequential(conv)), image, [(Target("0"), 1.0)], octaves=how)
    expected = image.clone()
    expected[0, 0] += 1.5 / 255 * image[0, 0] / (0.8 / 12)
    torch.testing.assert_close(frame.image, expected)
    assert frame.value == pytest.approx(0.5 * (0.01 + 0.09 + 0.04 + 0.04) / 4)


def test_a_dream_restated() -> None:
    """Two octaves of two steps, without jitter: base, carried detail, clipped steps."""
    network, image, wishes = (
        seeded(Small),
        picture(48, 64),
        [(Target("conv2"), 2.0), (Target("relu1", 1), 0.5)],
    )
    frames = list(dream(network, image, wishes, octaves=Octaves(count=2, steps=2, jitter=0)))

    def resized(x: Tensor, size: tuple[int, int]) -> Tensor:
        return nn.functional.interpolate(x, size, mode="bicubic", antialias=True, align_corners=False)

    base = resized(image, (34, 46)).clamp(0, 1)
    x = base
    for frame in frames[:2]:
        g = whole_gradient(network, x, wishes)
        x = (x + 1.5 / 255 / g.abs().mean() * g).clamp(0, 1)
        torch.testing.assert_close(frame.image, x)
    torch.testing.assert_close(
        frames[1].whole(), (image + resized(x - base, (48, 64))).clamp(0, 1)
    )  # as it would be kept now
    x = (image + resized(x - base, (48, 64))).clamp(0, 1)
    for frame in frames[2:]:
        g = whole_gradient(network, x, wishes)
        x = (x + 1.5 / 255 / g.abs().mean() * g).clamp(0, 1)
        torch.testing.assert_close(frame.image, x)
    assert [(f.octave, f.step, f.count, f.steps, f.last) for f in frames] == [
        (0, 1, 1, 4, False),
        (0, 2, 2, 4, False),
        (1, 1, 3, 4, False),
        (1, 2, 4, 4, True),
    ]


def test_what_is_asked_for_grows() -> None:
    network = seeded(Small)
    for wish in (Target("relu1"), Target("conv2", 3), Target("conv2", 3, (5, 6))):
        frames = list(dream(network, picture(), [(wish, 1.0)], octaves=Octaves(count=1, steps=8, jitter=0)))
        assert frames[-1].value > 1.1 * frames[0].value, str(wish)


def test_a_class_grows() -> None:
    network, image = seeded(Classifier), picture()
    frames = list(dream(network, image, [(Target(None, 2), 1.0)], octaves=Octaves(count=1, steps=8)))
    assert frames[0].value == pytest.approx(float(network(image)[0, 2]), rel=0.2)
    assert float(network(frames[-1].image)[0, 2]) > float(network(image)[0, 2])


def test_a_seed_makes_the_same_dream() -> None:
    def made(seed: int) -> Tensor:
        drawn = torch.Generator().manual_seed(seed)
        *_, last = dream(
            seeded(Small), picture(), [(Target("conv2"), 1.0)], octaves=Octaves(steps=2), generator=drawn
        )
        return last.image

    assert torch.equal(made(0), made(0))
    assert not torch.equal(made(0), made(1))


# Tiles


@pytest.mark.parametrize("shift", [(0, 0), (7, -11)])
def test_a_tiled_gradient_is_the_whole_one_away_from_seams(shift: tuple[int, int]) -> None:
    network, image, wishes = (
        seeded(Small),
        picture(80, 50),
        [(Target("conv2"), 2.0), (Target("relu1", 1), 1.0)],
    )
    tiled, value = tiled_gradient(network, image, wished(network, wishes), tile=40, shift=shift)
    rolled = image.roll(shift, (-2, -1))
    expected = -whole_gradient(network, rolled, wishes).roll((-shift[0], -shift[1]), (-2, -1))
    same = torch.isclose(tiled, expected, rtol=1e-9, atol=1e-15).all(1)[0].roll(shift, (0, 1))
    away = torch.ones(80, 50, dtype=torch.bool)
    # a gradient reaches 4 px: what answers to a pixel lies within 2, and is itself seen through 2 more
    away[40 - 4 : 40 + 4] = away[:, 25 - 4 : 25 + 4] = False
    assert same[away].all()
    assert not same[~away].all(), "there were no seams"
    one, worth = tiled_gradient(network, image, wished(network, wishes), tile=80, shift=shift)
    torch.testing.assert_close(one, expected)
    assert value == pytest.approx(worth, rel=0.05)


def test_seams_move_and_no_tile_is_larger_than_asked() -> None:
    network, sizes = seeded(Small), set[tuple[int, int]]()
    shifts: list[int] = []
    original = Network.answers

    def spy(self: Network, image: Tensor, layers: tuple[str, ...]) -> object:
        sizes.add((image.shape[-2], image.shape[-1]))
        return original(self, image, layers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Network, "answers", spy)
        patch.setattr(
            "innervision.see.dream.tiled_gradient",
            lambda *a, **k: shifts.append(k["shift"][1]) or tiled_gradient(*a, **k),
        )
        list(
            dream(
                network,
                picture(40, 100),
                [(Target("conv2"), 1.0)],
                octaves=Octaves(count=1, steps=6, jitter=1, tile=40),
            )
        )
    assert sizes == {(40, 33), (40, 34)}
    assert max(map(abs, shifts)) > 1 and len(set(shifts)) > 3


# Guides


def test_a_guides_gradient_by_brute_force() -> None:
    """At every place of x: the guide's activation whose inner product with it is the greatest."""
    network, image, guide = seeded(Small), picture(12, 10), picture(9, 14, seed=2)
    goal = wished(network, [(Target("conv2"), 1.0)], guide)
    x = network.features(image, ("conv2",))["conv2"].requires_grad_()
    found = torch.autograd.grad(goal({"conv2": x}, image)[0], x)[0]
    y = network.features(guide, ("conv2",))["conv2"][0]
    places = [y[:, i, j] for i in range(9) for j in range(14)]
    for i in range(12):
        for j in range(10):
            best = max(places, key=lambda place: float(place @ x.detach()[0, :, i, j]))
            torch.testing.assert_close(found[0, :, i, j], -best / x[0].numel())


def test_a_long_table_of_likenesses_is_made_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    network, image = seeded(Small), picture(12, 10)
    goal = wished(network, [(Target("conv2"), 1.0)], picture(9, 14, seed=2))
    whole = goal(network.features(image, ("conv2",)), image)[0]
    monkeypatch.setattr("innervision.see.wishes._MATCHED", 9 * 14 * 7)
    assert torch.equal(goal(network.features(image, ("conv2",)), image)[0], whole)


def test_a_guide_is_matched_by_layers_alone() -> None:
    network = seeded(Small)
    for target in (Target("conv2", 1), Target(None, 1)):
        with pytest.raises(Invalid, match="name layers alone"):
            wished(network, [(target, 1.0)], picture())


# Films


def test_a_zoom_shows_the_middle() -> None:
    ramp = torch.linspace(0.2, 0.8, 61, dtype=torch.float64).expand(1, 3, 41, 61).contiguous()
    closer = zoomed(ramp, 0.5)
    expected = 0.5 + (ramp - 0.5) * 0.5  # a slope half as steep about the same middle
    torch.testing.assert_close(closer, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(zoomed(ramp, 0.0), ramp)


def test_a_film_dreams_upon_dreams() -> None:
    network, image, wishes = seeded(Small), picture(), [(Target("conv2"), 1.0)]
    how = Octaves(count=1, steps=2, jitter=0)
    frames = list(film(network, image, wishes, pictures=2, zoom=0.1, octaves=how))
    assert [(f.picture, f.count, f.steps, f.last) for f in frames] == [
        (0, 1, 4, False),
        (0, 2, 4, True),
        (1, 3, 4, False),
        (1, 4, 4, True),
    ]
    *_, second = dream(network, zoomed(frames[1].image, 0.1), wishes, octaves=how)
    assert torch.equal(frames[-1].image, second.image)


def test_an_mp4_without_pyav_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(Invalid, match=r"innervision\[video\]"):
        Movie(tmp_path / "film.mp4")
    with pytest.raises(Invalid, match=r"\.mp4"):
        Movie(tmp_path / "film.avi")
    assert not list(tmp_path.iterdir())


def test_an_mp4_holds_its_pictures(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    levels = (0.2, 0.5, 0.8)
    with Movie(tmp_path / "film.mp4", fps=5) as movie:
        for level in levels:
            movie.add(torch.full((1, 3, 33, 48), level))
    with av.open(str(tmp_path / "film.mp4")) as file:
        shown = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert [one.shape for one in shown] == [(32, 48, 3)] * 3
    for one, level in zip(shown, levels, strict=True):
        assert np.abs(one / 255 - level).max() < 0.03
    with pytest.raises(RuntimeError, match="broken off"), Movie(tmp_path / "none.mp4") as movie:
        movie.add(torch.zeros(1, 3, 32, 32))
        raise RuntimeError("broken off")
    assert [each.name for each in tmp_path.iterdir()] == ["film.mp4"]


# Guests, and what cannot be


def test_a_guest_is_given_back_as_it_was() -> None:
    network = seeded(Small, torch.float32, frozen=False)
    network.module.train()
    flags = [p.requires_grad for p in network.module.parameters()]
    with torch.no_grad():
        for frame in dream(network, picture(dtype=torch.float32), [(Target("relu1"), 1.0)]):
            assert not torch.is_grad_enabled()
            if frame.count == 2:
                break
    assert network.module.training and flags == [p.requires_grad for p in network.module.parameters()]
    assert all(p.grad is None for p in network.module.parameters())
    assert not any(m._forward_hooks for m in network.module.modules())


def test_inference_mode_and_grey_networks() -> None:
    grey = wrap(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(inplace=True)), mean=(0.5,), std=(0.3,))
    with torch.inference_mode():
        *_, last = dream(grey, picture(dtype=torch.float32), [(Target("1"), 1.0)], octaves=Octaves(steps=2))
    assert last.image.isfinite().all() and last.image.shape == (1, 3, 40, 36)


def test_a_layer_that_is_silent_moves_nothing() -> None:
    conv = nn.Conv2d(3, 2, 1)
    nn.init.zeros_(conv.weight)
    nn.init.constant_(conv.bias, -1.0)
    image = picture(dtype=torch.float32)
    how = Octaves(count=1, steps=1)
    (frame,) = dream(wrap(nn.Sequential(conv, nn.ReLU())), image, [(Target("1"), 1.0)], octaves=how)
    assert torch.equal(frame.image, image)


@pytest.mark.parametrize(
    "options", [{"count": 0}, {"steps": 0}, {"scale": 1.0}, {"rate": 0.0}, {"jitter": -1}, {"tile": 8}]
)
def test_numbers_that_cannot_be_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(Invalid):
        Octaves(**options)


def test_what_cannot_be_dreamt_is_refused_at_once() -> None:
    network = seeded(Small)
    with pytest.raises(Invalid, match="nothing to dream of"):
        dream(network, picture(), [])
    with pytest.raises(Invalid, match="no layer 'conv9'"):
        dream(network, picture(), [(Target("conv9"), 1.0)])
    with pytest.raises(Invalid, match="one picture"):
        dream(network, picture()[0], [(Target("conv2"), 1.0)])
    with pytest.raises(Invalid, match="0 pictures"):
        film(network, picture(), [(Target("conv2"), 1.0)], pictures=0)
    fixed = wrap(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2)))
    with pytest.raises(Invalid, match=r"cannot dream on 36 x 40 px .* another size"):
        list(dream(fixed, picture(dtype=torch.float32), [(Target("1"), 1.0)]))
    known = wrap(fixed.module, input_size=32)
    with pytest.raises(Invalid, match="made for squares of 32 px, so try --size 32 --octaves 1, or name"):
        list(dream(known, picture(dtype=torch.float32), [(Target("1"), 1.0)]))
    how = Octaves(count=1, steps=1, tile=32)
    assert (
        len(list(dream(known, picture(32, 32, dtype=torch.float32), [(Target("1"), 1.0)], octaves=how))) == 1
    )


def test_what_is_dreamt_of_unless_layers_are_named() -> None:
    assert usual(seeded(Small)) == "relu1"
    bends = [
        nn.Conv2d(3, 4, 3),
        nn.GELU(),
        nn.Conv2d(4, 4, 3),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(4, 2),
        nn.GELU(),
    ]
    assert usual(wrap(nn.Sequential(*bends))) == "3"
    assert usual(wrap(nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)))) == "1"
    with pytest.raises(Invalid, match="name some of its --layers"):
        usual(wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))))


# The command

GUEST = """
from collections import OrderedDict
import torch
from torch import nn

def build():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(4, 6, 3, padding=1), relu2=nn.ReLU(),
        ))
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(GUEST)
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)
    Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC).save("photo.png")
    return tmp_path


def opened(file: str) -> NDArray[np.int64]:
    with Image.open(file) as picture:
        return np.asarray(picture).astype(np.int64)


def run(*args: str) -> Result:
    return CliRunner().invoke(
        cli, ["dream", *args, "--net", "mine.py:build", "--device", "cpu", "--steps", "2"]
    )


def test_the_command_writes_a_picture_and_its_card(here: Path) -> None:
    result = run("photo.png", "--json", "--layers", "relu2=2,conv1:3", "--guide", "photo.png")
    assert result.exit_code == 2 and "name layers alone" in result.output
    result = run("photo.png", "--json", "--layers", "relu2=2,conv1:3")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert events[-1]["output"] == "photo-dream.png" and events[-1]["finished"]
    assert [e["step"] for e in events[:-1]] == [1, 2, 3, 4]  # octaves of 34 and 48 px
    assert opened("photo-dream.png").shape == (48, 64, 3)
    card = json.loads((here / "photo-dream.png.run.json").read_text())
    assert card["options"]["layers"] == "relu2=2,conv1:3=1" and card["inputs"][0]["role"] == "picture"


def test_the_card_says_when_the_command_began_and_what_it_ran_on(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2001, 2, 3, 4, 5, 6)

    monkeypatch.setattr("innervision.cli.datetime", Clock)  # read as a command begins, and never again
    words = ("photo.png", "--net", "mine.py:build", "--layers", "relu1", "--steps", "1", "--octaves", "1")
    result = CliRunner().invoke(cli, ["dream", *words])
    assert result.exit_code == 0, result.output
    card = json.loads((here / "photo-dream.png.run.json").read_text())
    assert card["started"].startswith("2001-02-03T04:05:06")
    assert card["options"]["device"] == "auto" and card["machine"]["device"] == str(choose_device("auto"))


def test_the_command_makes_a_film_of_files(here: Path) -> None:
    result = run(
        "photo.png", "--quiet", "--pictures", "3", "--octaves", "1", "--layers", "relu1", "-o", "film"
    )
    assert result.exit_code == 0, result.output
    assert sorted(each.name for each in (here / "film").iterdir()) == [
        "0000.png",
        "0001.png",
        "0002.png",
        "run.json",
    ]


def test_a_runs_folder_keeps_the_picture_as_it_comes(here: Path) -> None:
    line = ["dream", "photo.png", "--net", "mine.py:build", "--device", "cpu", "--layers", "relu2"]
    result = CliRunner().invoke(cli, [*line, "--steps", "6", "--octaves", "2", "--quiet", "--run", "here"])
    assert result.exit_code == 0, result.output
    assert sorted(each.name for each in (here / "here/snapshots").iterdir()) == ["0005.png", "0011.png"]
    for name in ("0005", "0011"):  # at the full size, though the first octave is smaller
        assert opened(f"here/snapshots/{name}.png").shape == (48, 64, 3)
    late, early = (
        np.abs(opened(f"here/snapshots/{n}.png") - opened("photo-dream.png")).mean() for n in ("0011", "0005")
    )
    assert late < early


def test_ctrl_c_keeps_the_picture_so_far(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []

    def tired(*args: object, **options: object) -> tuple[Tensor, float]:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(1)
        return tiled_gradient(*args, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr("innervision.see.dream.tiled_gradient", tired)
    result = run("photo.png")
    assert result.exit_code == 130, result.output
    assert opened("photo-dream.png").shape == (48, 64, 3)  # though the octave was smaller
    assert 0 < np.abs(opened("photo-dream.png") - opened("photo.png")).mean() < 10


def test_wishes_are_read() -> None:
    network = wrap(Small(), classes="abcdefgh")
    assert read_wishes("conv2:3@4,6=0.5,relu1,class:7=2", network) == [
        (Target("conv2", 3, (4, 6)), 0.5),
        (Target("relu1"), 1.0),
        (Target(None, 7), 2.0),
    ]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nope.png",), "no file"),
        (("photo.png", "--layers", "relu9"), "no layer 'relu9'"),
        (("photo.png", "--layers", "relu1=much"), "no weight"),
        (("photo.png", "--layers", "relu1:99"), "no channel 99"),
        (("photo.png", "--octaves", "0"), "octaves is 0"),
        (("photo.png", "-o", "dream.xyz"), "dream.xyz"),
        (("photo.png", "--pictures", "2", "-o", "film.avi"), "a folder or an .mp4"),
    ],
)
def test_bad_orders_get_one_line(here: Path, args: tuple[str, ...], said: str) -> None:
    result = run(*args)
    assert result.exit_code == 2 and said in result.output
    assert len(result.output.strip().splitlines()) == 1
