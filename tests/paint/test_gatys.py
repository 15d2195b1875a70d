"""A painting at work: where it starts, how it moves, when it stops, and what is shown of it."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import RichOutput, capture_output
from PIL import Image
from torch import Tensor

import innervision
from innervision import images, machine
from innervision.core import Detail, Pixels
from innervision.errors import Diverged, Invalid, WeightsMissing
from innervision.network import Network
from innervision.paint import gatys
from innervision.paint.gatys import Painting
from innervision.paint.recipes import Recipe
from innervision.weights import Preprocessing

Draw = Callable[..., Image.Image]
Paint = Callable[..., Painting]


def saved(painting: Painting) -> Any:
    """Return a painting's checkpoint as it comes back from a file that cannot run code."""
    file = io.BytesIO()
    torch.save(painting.checkpoint(), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def image_of(picture: Image.Image) -> Tensor:
    return torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None] / 255


# where it starts


@pytest.mark.parametrize("canvas", ["detail", "pixels"])
def test_it_starts_from_what_is_named(paint: Paint, picture: Draw, tmp_path: Path, canvas: str):
    picture(24, 32, 7).save(tmp_path / "start.png")
    for start, want in (
        ("content", image_of(picture(24, 32, 1))),
        ("style", image_of(picture(24, 32, 2))),
        ("grey", torch.full((1, 3, 24, 32), 0.5)),
        (str(tmp_path / "start.png"), image_of(picture(24, 32, 7))),
    ):
        painting = paint(picture(24, 32, 1), picture(24, 32, 2), start=start, canvas=canvas)
        assert torch.allclose(next(painting).image, want, atol=1e-6), start


def test_a_start_is_settled_before_the_network_is_opened(
    paint: Paint, picture: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "start.png"
    picture(24, 32, 7).save(file)
    painting = paint(start=str(file))
    file.unlink()
    assert torch.allclose(next(painting).image, image_of(picture(24, 32, 7)), atol=1e-6)
    monkeypatch.setattr(gatys, "open_network", lambda _: pytest.fail("opened the network"))
    for start, said in (
        (
            "nosie",
            r"no start 'nosie'; there are content, noise, style, grey, a picture file. Did you mean 'noise'",
        ),
        ("nope.png", r"no file 'nope.png'"),
        (str(tmp_path / "nope"), r"no file '.*nope'"),
        ("sample:chelsee", r"Did you mean 'chelsea'"),
    ):
        with pytest.raises(Invalid, match=said):
            paint(start=start)
    with pytest.raises(Invalid, match="a style picture that is not blank"):
        paint(style="blank", start="style")


def test_noise_is_of_its_seed(paint: Paint):
    first, again, other = (next(paint(start="noise", seed=seed)).image for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.allclose(first, other, atol=0.1)
    assert float(first.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(first.std()) == pytest.approx(0.1, abs=0.01)


def test_a_blank_content_is_started_from_noise(paint: Paint, picture: Draw):
    blank = paint("blank", seed=3)
    noise = paint(picture(32, 32, 1), start="noise", seed=3)
    assert torch.equal(next(blank).image, next(noise).image)  # of the style's shape, 32x32
    assert torch.equal(blank.goals.content((2, 2)), torch.full((1, 3, 2, 2), 0.5))


def test_a_blank_style_is_plain_grey(paint: Paint, picture: Draw):
    blank, grey = (paint(style=style) for style in ("blank", Image.new("RGB", (32, 24), (128, 128, 128))))
    assert [f.total for f in blank] == pytest.approx([f.total for f in grey], rel=0.02)  # 128/255 is not .5
    with pytest.raises(Invalid, match="cannot both be blank"):
        paint("blank", "blank")
    with pytest.raises(Invalid, match="a style picture that is not blank"):
        paint(style="blank", start="style")
    both = paint(style=["blank", picture(24, 32, 2)], start="style")
    assert torch.allclose(next(both).image, image_of(picture(24, 32, 2)), atol=1e-6)


def test_the_content_alone_draws_noise_to_it(paint: Paint):
    layers = {"content_layers": ("conv1",), "content_weight": 1.0, "style_weight": 0.0}
    painting = paint(start="noise", steps=150, every=50, **layers)
    first, *_, last = list(painting)
    want = painting.goals.content((24, 32))
    assert last.total < 1e-3 * first.total
    assert float((last.image - want).abs().mean()) < 0.1 * float((first.image - want).abs().mean())


# how it moves


@pytest.mark.parametrize(
    "options",
    [{}, {"canvas": "pixels"}, {"optimiser": "adam", "learning_rate": 2.0}, {"stages": ((16, 8), (32, 8))}],
)
def test_every_descent_lowers_the_total(paint: Paint, options: dict[str, Any]):
    frames = list(paint(**({"steps": 16} | options)))
    at_full = [f.total for f in frames if f.image.shape[-2:] == (24, 32)]
    assert min(at_full[1:]) < 0.7 * at_full[0]
    assert [f.count for f in frames] == list(range(1, 17))


def test_the_canvas_follows_the_optimiser(paint: Paint):
    for options, kind in (
        ({}, Detail),
        ({"optimiser": "adam"}, Pixels),
        ({"canvas": "pixels"}, Pixels),
        ({"optimiser": "adam", "canvas": "detail"}, Detail),
    ):
        painting = paint(**options)
        assert isinstance(painting._canvas(painting._start((24, 32))), kind)


def test_a_step_of_adam_is_its_learning_rate_in_the_recipe_s_units(paint: Paint):
    for units, unit in (("byte", [1 / 255] * 3), ("normalised", [0.229, 0.224, 0.225])):
        painting = paint(optimiser="adam", learning_rate=0.5, units=units)
        before, after = (next(painting).image for _ in range(2))
        moved = (after - before)[0].flatten(1).abs()  # Adam's first step is its rate, whatever the gradient
        assert moved.median(1).values.tolist() == pytest.approx([0.5 * u for u in unit], rel=1e-3)


def test_a_step_of_adam_on_the_spectrum_is_its_learning_rate_at_the_finest_grain(paint: Paint):
    r = (torch.fft.fftfreq(24)[:, None] ** 2 + torch.fft.rfftfreq(32)[None, :] ** 2).sqrt()
    slope = ((r + 1 / 32) / (1 / 2 + 1 / 32)) ** -0.5  # 1 at half a cycle a pixel
    for units, unit in (("byte", 1 / 255), ("normalised", (0.229 + 0.224 + 0.225) / 3)):
        painting = paint(optimiser="adam", canvas="detail", learning_rate=0.5, units=units)
        before, after = (next(painting).image for _ in range(2))
        moved = torch.fft.irfft2(torch.fft.rfft2(after - before) / slope, s=(24, 32)).abs()
        assert moved.median().item() == pytest.approx(0.5 * unit, rel=1e-3)


def test_clamp_holds_until_the_late_steps(paint: Paint):
    frames = list(
        paint(optimiser="adam", learning_rate=90.0, clamp=0.5, steps=6, late_steps=3, late_learning_rate=90.0)
    )
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    beyond = [float(((f.image[0].flatten(1).T - mean).abs() - 0.5 * std).max()) for f in frames]
    assert beyond[0] > 0.05  # as it came
    assert max(beyond[1:4]) <= 1e-5
    assert max(beyond[4:]) > 0.05


def test_history_is_what_is_remembered(paint: Paint):
    for history in (1, 3):
        painting = paint(history=history, steps=6)
        for _ in painting:
            pass
        assert len(painting.checkpoint()["optimiser"]["pairs"]) == history


def test_average_pooling_is_what_the_targets_were_seen_through(picture: Draw):
    content = picture(32, 32, 1)
    options = {
        "size": 32,
        "content_layers": ("relu2_1",),
        "style_layers": ("relu1_1",),
        "precision": "float32",
    }
    painting = innervision.stylize(content, content, pooling="average", stages=None, **options)
    state = painting.network.module.state_dict()
    x = image_of(content) * 255 - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1)
    for name in ("conv1_1", "conv1_2", "pool", "conv2_1"):
        if name == "pool":
            x = F.avg_pool2d(x, 2)
        else:
            x = F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))
    target = next(
        t for t in painting.goals.objective((32, 32)).terms if t.name == "content relu2_1"
    ).measure.target
    assert torch.allclose(target, x, rtol=1e-4, atol=1e-2)


# when it stops, and how it goes on


def test_snapshots_are_due_every_so_many_steps_and_at_the_end_of_a_size(paint: Paint):
    painting = paint(stages=((16, 5), (32, 7)), every=3)
    due = [(f.stage, f.step) for f in painting if painting.snapshot_due(f)]
    assert due == [(0, 3), (0, 5), (1, 3), (1, 6), (1, 7)]
    assert [count for count, _ in painting.changes] == [
        5,
        11,
        12,
    ]  # the first of a size has none to compare with


def test_changes_are_percentages_of_the_full_range(paint: Paint):
    painting = paint(every=2, steps=4)
    seen = {f.count: f.image.clamp(0, 1) for f in painting}
    ((count, change),) = painting.changes
    assert (count, change) == (4, pytest.approx(100 * float((seen[4] - seen[2]).abs().mean()), rel=1e-4))


@pytest.mark.parametrize("stages", [None, ((16, 4), (24, 6))])
def test_until_stops_at_the_first_snapshot_that_changed_less(paint: Paint, stages: Any):
    painting = paint(until=100.0, steps=6, stages=stages)
    last = list(painting)[-1]
    # never at a coarse size; at full size the second snapshot is the first with a difference
    assert (last.step, last.image.shape[-1]) == (4, 32 if stages is None else 24)
    assert painting.settled
    assert next(painting, None) is None
    restless = paint(until=1e-9, steps=6)
    assert len(list(restless)) == 6
    assert not restless.settled


def test_painting_goes_on_bit_for_bit(paint: Paint):
    adam = {"optimiser": "adam", "late_steps": 4, "clamp": 1.5}
    for options in ({}, {"stages": ((16, 5), (32, 5)), "color": "keep"}, {"steps": 9, **adam}):
        whole = paint(**options)
        frames = list(whole)
        for stop in (1, 4, 5):
            part = paint(**options)
            for _ in range(stop):
                next(part)
            resumed = paint(**options, resume=saved(part))
            rest = list(resumed)
            assert [f.count for f in rest] == list(range(stop + 1, len(frames) + 1))
            assert torch.equal(rest[-1].image, frames[-1].image)
            assert rest[-1].values == frames[-1].values
            assert resumed.changes == whole.changes
            assert resumed.best.total == whole.best.total
            again = paint(**options, resume=saved(paint(**options, resume=saved(part))))  # no step between
            assert torch.equal(list(again)[-1].image, frames[-1].image)


def test_a_checkpoint_of_the_last_step_leaves_nothing_to_paint(paint: Paint):
    for options in (
        {},
        {"stages": ((16, 3), (32, 3)), "color": "keep"},
        {"optimiser": "adam", "late_steps": 2},
    ):
        whole = paint(**options)
        last = list(whole)[-1]
        resumed = paint(**options, resume=saved(whole))
        assert list(resumed) == []
        for frame, want in ((resumed.latest, last), (resumed.best, whole.best)):
            assert (frame.count, frame.steps, frame.total, frame.values) == (
                *(want.count, want.steps, want.total),
                want.values,
            )
            assert torch.equal(frame.image, want.image)
        assert resumed.changes == whole.changes
        assert resumed.picture().tobytes() == whole.picture().tobytes()


def test_a_painting_that_had_settled_stays_so(paint: Paint):
    part = paint(until=100.0, steps=9)
    while not part.settled:
        next(part)
    resumed = paint(until=100.0, steps=9, resume=saved(part))
    assert list(resumed) == []
    assert resumed.settled
    assert (resumed.latest.count, resumed.best.count) == (4, part.best.count)
    assert resumed.picture().tobytes() == part.picture().tobytes()


def test_what_is_no_painting_s_checkpoint_is_refused(paint: Paint):
    frame = next(paint())
    with pytest.raises(Invalid, match=r"resume takes a Painting's checkpoint.*lacks best, changes, compared"):
        paint(resume=frame.checkpoint())


def test_it_tells_its_sizes_steps_and_network(paint: Paint, picture: Draw):
    painting = paint(picture(24, 32, 1), picture(24, 32, 2), stages=((16, 2), (32, 3)))
    net = painting.recipe.net
    assert repr(painting) == f"Painting(16x12 x 2, 32x24 x 3; 0 of 5 steps done, {net})"
    next(painting)
    assert repr(painting) == f"Painting(16x12 x 2, 32x24 x 3; 1 of 5 steps done, {net})"
    assert repr(paint(picture(24, 32, 1), color="transfer-only")) == "Painting(32x24, colours alone)"


def test_a_tab_completes_what_is_public():
    names = [name for name in dir(innervision) if not name.startswith("_")]
    assert names == ["Network", "PRESETS", "Painting", "Recipe", "load", "read", "stylize", "wrap"]
    assert all(hasattr(innervision, name) for name in names)


def test_the_best_is_the_lowest_of_the_last_size(paint: Paint):
    painting = paint(optimiser="adam", learning_rate=60.0, stages=((16, 8), (32, 2)))
    frames = list(painting)
    lowest = min((f for f in frames if f.stage == 1), key=lambda f: f.total)
    assert painting.best.count == lowest.count
    assert min(f.total for f in frames) < painting.best.total < frames[-1].total  # such a rate overshoots
    assert painting.latest is frames[-1]


def test_nothing_can_be_saved_before_something_is_painted(paint: Paint, tmp_path: Path):
    painting = paint()
    for act in (lambda: painting.save(tmp_path / "out.png"), painting.checkpoint):
        with pytest.raises(Invalid, match="nothing has been painted yet"):
            act()
    painting._frames.close()  # as Ctrl-C before the first frame does
    with pytest.raises(Invalid, match="nothing has been painted yet"):
        painting.picture()


# colour


def test_keep_leaves_the_content_s_chroma_where_nothing_is_clipped(paint: Paint):
    painting = paint(color="keep")
    image = list(painting)[-1].image
    content = painting.goals.content((24, 32))
    inside = ((image > 0.01) & (image < 0.99)).all(1)
    luma = torch.tensor([0.299, 0.587, 0.114])
    (now, before) = ((each - torch.einsum("c,ncij->nij", luma, each)[:, None]) for each in (image, content))
    assert inside.float().mean() > 0.5
    assert float((now - before).abs().amax(1)[inside].max()) < 1e-5
    assert float((image - content).abs().max()) > 0.05  # and yet it was painted
    free = paint("blank", color="keep")
    assert torch.equal(list(free)[-1].image, list(paint("blank"))[-1].image)  # blank has no chroma to keep


def test_pictures_are_resized_once_a_size_however_many_the_frames(
    paint: Paint, monkeypatch: pytest.MonkeyPatch
):
    sizes: list[images.Size] = []
    resized = images.Picture.tensor
    monkeypatch.setattr(
        images.Picture, "tensor", lambda self, size: (sizes.append(size), resized(self, size))[1]
    )
    paint(color="keep", steps=9, style_size=20).picture()
    assert sorted(sizes) == [(20, 20), (24, 32)]


def test_transfer_only_gives_the_content_the_style_s_mean_and_covariance(paint: Paint):
    painting = paint(color="transfer-only")
    (frame,) = list(painting)
    image, style = (x[0].flatten(1).double() for x in (frame.image, painting.goals.styles((24, 32))[0]))
    assert torch.allclose(image.mean(1), style.mean(1), atol=1e-4)
    assert torch.allclose(torch.cov(image), torch.cov(style), atol=1e-4)
    assert (frame.total, frame.last, painting.best) == (0.0, True, frame)


def test_transfer_only_by_histogram_gives_the_content_the_style_s_values(paint: Paint, picture: Draw):
    style = np.asarray(picture(24, 32, 2))
    lighter = np.where(style < 128, style + 10, style + 40)  # each value another, and no linear map undoes it
    content = np.random.default_rng(0).permutation(lighter.reshape(-1, 3)).reshape(style.shape)
    painting = paint(
        Image.fromarray(content), Image.fromarray(style), color="transfer-only", color_match="histogram"
    )
    found, want = (np.sort(np.asarray(each).reshape(-1, 3), 0) for each in (painting.picture(), style))
    assert np.array_equal(found, want)


def test_transfer_only_needs_no_network(
    paint: Paint, picture: Draw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("INNERVISION_HOME", str(tmp_path))  # where no weights are
    pair = picture(24, 32, 1), picture(24, 32, 2)
    painting = innervision.stylize(*pair, preset="article", color="transfer-only", size=32)
    assert painting.picture().tobytes() == paint(*pair, color="transfer-only").picture().tobytes()
    with pytest.raises(WeightsMissing):
        _ = painting.network


def test_transfer_only_takes_the_weighted_mean_of_styles_and_any_shape(paint: Paint):
    flat = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    painting = paint(Image.new("RGB", (500, 1)), flat, color="transfer-only", style_weights=(1.0, 3.0))
    (frame,) = list(painting)
    assert frame.image.shape == (1, 3, 1, 32)
    assert frame.image.mean((0, 2, 3)).tolist() == pytest.approx([0.25, 0.75, 0.0], abs=1e-6)


# the machine


def test_precision_follows_what_the_processor_has(monkeypatch: pytest.MonkeyPatch):
    for bf16, amx in itertools.product((False, True), repeat=2):
        for name, has in (("avx512_bf16", bf16), ("amx_tile", amx)):
            monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda has=has: has, raising=False)
        want = torch.bfloat16 if bf16 or amx else torch.float32
        assert machine.choose_precision("auto", torch.device("cpu")) == want
        assert machine.choose_precision("float32", torch.device("cpu")) == torch.float32
        assert machine.choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16
        assert machine.choose_precision("auto", torch.device("mps")) == torch.float32


def test_a_torch_that_does_not_tell_of_the_processor_paints_in_float32(monkeypatch: pytest.MonkeyPatch):
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.delattr(torch.cpu, f"_is_{name}_supported", raising=False)
    assert machine.choose_precision("auto", torch.device("cpu")) == torch.float32


def test_bfloat16_is_the_network_s_alone(paint: Paint):
    rough, fine = paint(precision="bfloat16"), paint()
    assert (rough.network.dtype, fine.network.dtype) == (torch.bfloat16, torch.float32)
    frame = next(rough)
    assert frame.image.dtype == torch.float32
    assert frame.total == pytest.approx(next(fine).total, rel=0.05)


@pytest.mark.parametrize("name", ["abacus", "meta", "cuda:99", ""])
def test_a_device_that_cannot_compute_is_refused(name: str):
    with pytest.raises(Invalid, match=f"device '{name}' cannot be used"):
        machine.choose_device(name)
    assert machine.choose_device("cpu") == torch.device("cpu")


def test_what_lies_behind_the_deepest_layer_is_let_go(paint: Paint, monkeypatch: pytest.MonkeyPatch):
    layers = {"content_layers": ("conv1",), "style_layers": ("relu1",)}
    short = paint(**layers)
    assert short.network.layers == ("conv1", "relu1")
    monkeypatch.setattr(Network, "upto", lambda self, _: self)
    whole = paint(**layers)
    assert whole.network.layers == ("conv1", "relu1", "pool1", "conv2", "relu2")
    for one, other in zip(short, whole, strict=True):
        assert one.values == other.values and torch.equal(one.image, other.image)


def test_threads_are_given_back(paint: Paint, monkeypatch: pytest.MonkeyPatch):
    mine, within = torch.get_num_threads(), []
    painting = paint(threads=mine + 1)
    see = painting.network._input
    monkeypatch.setattr(
        painting.network, "_input", lambda x: (within.append(torch.get_num_threads()), see(x))[1]
    )
    next(painting)
    assert (set(within), torch.get_num_threads()) == ({mine + 1}, mine)
    monkeypatch.setattr(painting.network, "_input", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next(painting)
    assert torch.get_num_threads() == mine


# networks of one's own


def test_a_recipe_takes_a_network_of_one_s_own(guest: str, picture: Draw):
    mine = Recipe(
        net=guest, content_layers=("relu2",), style_layers=("relu1",), size=32, steps=2, precision="float32"
    )
    painting = Painting(picture(24, 32, 1), [picture(24, 32, 2)], mine)
    assert painting.network.name == guest
    assert set(list(painting)[-1].values) == {"content relu2", "style relu1", "gamut"}


def test_a_network_of_one_s_own_is_given_the_input_it_wants(guest: str, paint: Paint):
    wanted = Preprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), 255.0, "BGR")
    painting = paint(mean=wanted.mean, std=wanted.std, range=wanted.range, order=wanted.order)
    assert painting.network.preprocessing == wanted
    with pytest.raises(Invalid, match="RGB, BGR"):
        Recipe(net=guest, order="GBR")  # pyright: ignore[reportArgumentType]


def test_a_network_with_layers_of_one_size_paints_at_that_size(guest: str, paint: Paint, picture: Draw):
    fixed = {"net": guest.replace(":build", ":fixed"), "content_layers": ("fc",), "style_layers": ("relu1",)}
    assert len(list(paint(style=picture(24, 32, 2), steps=2, **fixed))) == 2
    with pytest.raises(Invalid, match=r"fails at a picture of 16x12 px: .*768.*3072"):
        paint(size=16, **fixed)


WATCHED = """
from torch import nn

class Watched(nn.Conv2d):
    seen = []  # sizes that it was computed at

    def forward(self, x):
        if x.device.type != "meta":
            self.seen.append(tuple(x.shape[2:]))
        return super().forward(x)

class Numbers(Watched):
    def forward(self, x):
        assert float(x.mean()) < 9
        return super().forward(x)

class Evens(Watched):
    def forward(self, x):
        if x.shape[-1] % 4:
            raise ValueError("not in fours")
        return super().forward(x)

def build():
    return nn.Sequential(Watched(3, 4, 3, padding=1), nn.ReLU())

def numbers():
    return nn.Sequential(Numbers(3, 4, 3, padding=1), nn.ReLU())

def evens():
    return nn.Sequential(Evens(3, 4, 3, padding=1), nn.ReLU())
"""


@pytest.mark.parametrize(("function", "seen"), [("build", []), ("numbers", [(64, 64)] * 2)])
def test_a_network_of_one_s_own_is_asked_of_sizes_without_the_work(
    paint: Paint, tmp_path: Path, function: str, seen: list[images.Size]
):
    (tmp_path / "watched.py").write_text(WATCHED)
    layers = {"content_layers": ("1",), "style_layers": ("1",)}
    painting = paint(net=f"{tmp_path / 'watched.py'}:{function}", size=3000, **layers)
    assert painting.network.module[0].seen == seen  # of the content and the style


def test_a_network_of_one_s_own_may_refuse_a_later_size(
    guest: str, paint: Paint, picture: Draw, tmp_path: Path
):
    (tmp_path / "watched.py").write_text(WATCHED)
    fixed = {"net": guest.replace(":build", ":fixed"), "content_layers": ("fc",), "style_layers": ("relu1",)}
    with pytest.raises(Invalid, match=r"fails at a picture of 64x48 px: .*12288.*3072"):
        paint(style=picture(24, 32, 2), stages=((32, 2), (64, 2)), **fixed)
    evens = {"net": f"{tmp_path / 'watched.py'}:evens", "content_layers": ("1",), "style_layers": ("1",)}
    with pytest.raises(Invalid, match=r"evens fails at a picture of 130x\d+ px: not in fours"):
        paint(style=picture(24, 32, 2), size=130, **evens)


# pictures that nobody expects


def test_what_is_no_picture_is_said_to_be_none(paint: Paint):
    for wrong in (np.zeros((8, 8, 3)), torch.zeros(1, 3, 8, 8), iter(())):
        for pair in ((wrong, None), (None, wrong), (None, [wrong])):
            with pytest.raises(Invalid, match=f"no picture can be read from {type(wrong).__name__}: give a"):
                paint(*pair)


def test_style_that_is_the_content_is_its_own_optimum(paint: Paint, picture: Draw):
    for image in (picture(24, 32, 1), Image.new("RGB", (32, 24))):  # black, too
        painting = paint(image, image)
        assert next(painting).total < 1e-3
        assert np.abs(np.asarray(painting.picture(), int) - np.asarray(image, int)).max() <= 1


def test_black_takes_a_style_as_any_other(paint: Paint):
    first, *_, last = list(paint(Image.new("RGB", (32, 24)), steps=20))
    assert last.total < 0.5 * first.total


def test_one_pixel_is_a_picture(paint: Paint):
    dot = Image.new("RGB", (1, 1), "red")
    painting = paint(dot, size=16)
    assert painting.picture().size == (16, 16)
    assert paint(style=dot).picture().size == (32, 24)
    with pytest.raises(Invalid, match=r"a picture of 1x1 px is too narrow for relu2"):
        paint(dot, size=None)


@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1)])
def test_a_picture_one_pixel_wide_is_refused_before_the_work(paint: Paint, shape: tuple[int, int]):
    thin = Image.new("RGB", shape, "red")
    with pytest.raises(Invalid, match=r"a picture of .* px is too narrow for relu2: choose a larger size"):
        paint(thin)
    with pytest.raises(Invalid, match=r"the PIL image of .* px is too narrow for relu2"):
        paint(style=thin)
    with pytest.raises(Invalid, match="too narrow for relu2"):
        paint(style_size=1)
    assert len(list(paint(thin, style_layers=("relu1",), content_layers=("relu1",), steps=2))) == 2


def test_a_very_large_picture_is_looked_at_small(paint: Paint):
    large = Image.linear_gradient("L").resize((6000, 4000)).convert("RGB")
    image = next(paint(large)).image
    assert image.shape == (1, 3, 21, 32)
    rows = image[0, 0].mean(1)
    assert torch.allclose(rows, (torch.arange(21) + 0.5) / 21, atol=0.02)


@pytest.mark.parametrize(
    ("options", "term"),
    [
        ({"style_weight": 1e38}, "style relu1"),
        ({"content_weight": 1e38, "start": "noise"}, "content relu2"),
        ({"tv_weight": 1e30, "tv_power": 9.0}, "smooth"),
        ({"style_layer_weights": (1.0, 1e38)}, "style relu2"),
    ],
)
def test_an_absurd_weight_is_named(paint: Paint, options: dict[str, Any], term: str):
    with pytest.raises(
        Diverged, match=rf"the term '{term}' is (inf|nan), no longer a number, at step 1 of stage 1"
    ):
        list(paint(**options))


def test_alpha_and_resolution_are_put_back(paint: Paint, picture: Draw, tmp_path: Path):
    content = picture(48, 64, 1)
    alpha = Image.linear_gradient("L").resize((64, 48))
    content.putalpha(alpha)
    content.save(tmp_path / "content.png", dpi=(300, 300))
    painting = paint(tmp_path / "content.png")
    frame = next(painting)
    painting.save(tmp_path / "out.png")
    painting.save(tmp_path / "out.jpg")  # which has none
    painting.save(held := io.BytesIO())
    assert held.getvalue() == (tmp_path / "out.png").read_bytes()
    small = alpha.resize((32, 24), Image.Resampling.BICUBIC)
    for shown in (painting.show(frame), Image.open(held)):
        assert shown.mode == "RGBA"
        assert np.array_equal(np.asarray(shown.getchannel("A")), np.asarray(small))
        assert np.array_equal(np.asarray(shown.convert("RGB")), images.to_bytes(frame.image))
    assert round(Image.open(held).info["dpi"][0]) == 300
    with Image.open(tmp_path / "out.jpg") as shown:
        assert shown.mode == "RGB"


# a notebook


class Cell:
    """A real IPython shell; what a cell shows is caught."""

    def __init__(self) -> None:
        self.shell = InteractiveShell.instance()

    def shows(self, painting: Painting) -> list[RichOutput]:
        self.shell.push({"painting": painting})
        with capture_output() as caught:
            self.shell.run_cell("painting").raise_error()
        return caught.outputs


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Cell]:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    yield Cell()
    InteractiveShell.clear_instance()


def drawn(output: RichOutput) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(output.data["image/png"])).convert("RGB"))


def test_a_painting_shows_itself_in_a_notebook_while_it_is_painted(paint: Paint, cell: Cell):
    painting = paint(stages=((16, 3), (32, 6)), every=2)
    shown = cell.shows(painting)
    # the first frame, the snapshots (2 and 3; 2, 4 and 6), and the best
    assert [each.update for each in shown] == [False, *[True] * 6]
    assert len({each.transient["display_id"] for each in shown}) == 1  # each in the place of the one before
    assert {drawn(each).shape for each in shown} == {(24, 32, 3)}  # the coarse ones as well
    assert np.array_equal(drawn(shown[-1]), images.to_bytes(painting.best.image))
    assert painting.latest.count == 9
    (again,) = cell.shows(painting)  # nothing is painted again
    assert np.array_equal(drawn(again), drawn(shown[-1]))
    assert painting.latest.count == 9


@pytest.mark.parametrize("during", ["a step", "a snapshot"])
def test_a_notebook_s_stop_button_keeps_the_best(
    paint: Paint, cell: Cell, monkeypatch: pytest.MonkeyPatch, during: str
):
    painting = paint(steps=50)
    calls = itertools.count(1)

    def interrupted(*args: Any) -> Any:
        if next(calls) == 6:
            raise KeyboardInterrupt
        return work(*args)

    if during == "a step":  # the first calls count what it needs, and see the targets
        work = painting.network._input
        monkeypatch.setattr(painting.network, "_input", interrupted)
    else:
        work = painting.show
        monkeypatch.setattr(painting, "show", interrupted)
    shown = cell.shows(painting)
    stopped = painting.latest.count
    assert 1 < stopped < 12
    assert np.array_equal(drawn(shown[-1]), images.to_bytes(painting.best.image))
    assert len(cell.shows(painting)) == 1
    assert painting.latest.count == stopped


def test_a_painting_stopped_before_its_first_frame_shows_nothing(
    paint: Paint, cell: Cell, monkeypatch: pytest.MonkeyPatch
):
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    painting = paint()
    monkeypatch.setattr(painting.network, "_input", interrupted)
    assert cell.shows(painting) == []


def test_a_painting_begun_by_hand_goes_on_in_a_notebook(paint: Paint, cell: Cell):
    painting = paint(steps=6, every=3)
    next(painting), next(painting)
    assert len(cell.shows(painting)) == 3  # frames 3 and 6, and the best
    assert painting.latest.count == 6
