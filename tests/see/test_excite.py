"""Oracles: units whose best picture is known, each unit alone, Lucid's formulas restated, and counts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision.cli import cli
from innervision.cli.excited import answer, draw, glimpse
from innervision.core import Sgd, diversity
from innervision.core import excite as excitement
from innervision.errors import Diverged, Invalid
from innervision.network import Network, wrap
from innervision.see.excite import Direction, Excitation, Excited, excite
from innervision.see.opened import Opened
from innervision.see.presets import LOOKS, PRESETS
from innervision.see.target import Target

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU())
"""


def colours() -> Network:
    """Channels that answer to red, green, blue, and to dark."""
    conv = nn.Conv2d(3, 4, 1)
    with torch.no_grad():
        conv.weight.copy_(
            torch.tensor([[2.0, -1, -1], [-1, 2, -1], [-1, -1, 2], [-1, -1, -1]])[..., None, None]
        )
        conv.bias.copy_(torch.tensor([0.2, 0.2, 0.2, 2.0]))
    module = nn.Sequential()
    module.add_module("conv", conv)
    module.add_module("relu", nn.ReLU(inplace=True))
    return wrap(module)


def deep(dtype: torch.dtype = torch.float64) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(inplace=True), nn.Conv2d(6, 5, 3), nn.ReLU(inplace=True)
        )
    return wrap(module.to(dtype), mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.2))


class Classifier(nn.Module):
    """Of 16 x 16 grey pictures only; its ReLUs are functions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(4 * 49, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 2)
        return self.fc(F.relu(x).flatten(1))


def images(n: int, *size: int) -> Tensor:
    return torch.rand(
        n, 3, *(size or (9, 11)), generator=torch.Generator().manual_seed(2), dtype=torch.float64
    )


# What is asked


def test_each_picture_has_a_unit_and_a_gradient_of_its_own() -> None:
    network, batch = deep().frozen(torch.float64), images(3).requires_grad_()
    goal = excitement("2", [0, 4, 2])
    total, _ = goal(network.features(batch, goal.layers), batch)
    (together,) = torch.autograd.grad(total, batch)
    for n, channel in enumerate((0, 4, 2)):
        one = batch[n : n + 1].detach().requires_grad_()
        alone = -network.features(one, ("2",))["2"][:, channel].mean()
        torch.testing.assert_close(torch.autograd.grad(alone, one)[0], together[n : n + 1])
    assert str(goal) == "1 · excite 2:0…2"
    with pytest.raises(Invalid, match="2 units for 3 pictures"):
        excitement("2", [0, 4])(network.features(batch, ("2",)), batch)


def test_a_place_and_a_direction_by_hand() -> None:
    network, batch = deep(), images(2)
    a = network.features(batch, ("2",))["2"].detach()  # (2, 5, 5, 7)

    def value(**options) -> float:
        goal = excitement("2", **options)
        return -float(goal({"2": a}, batch)[0])

    assert value(channel=3, place=(0.5, 0.5)) == pytest.approx(float(a[:, 3, 2, 3].sum()))
    assert value(channel=3, place=(0.0, 1.0)) == pytest.approx(float(a[:, 3, 0, 6].sum()))
    even = {"2": a[..., :4, :6]}  # the centre is Lucid's: right below the middle
    middle = -float(excitement("2", 3, place=(0.5, 0.5))(even, batch)[0])
    assert middle == pytest.approx(float(a[:, 3, 2, 3].sum()))
    v = torch.tensor([1.0, -2, 0, 3, 0.5], dtype=torch.float64)
    along = torch.einsum("nchw,c->nhw", a, v)
    assert value(direction=v) == pytest.approx(float(along.mean((1, 2)).sum()))
    cosine = along / ((a.norm(dim=1) + 1e-4) * (v.norm() + 1e-4))
    lucids = (along * cosine.clamp(min=0.1) ** 2).mean((1, 2)).sum()
    assert value(direction=v, power=2.0) == pytest.approx(float(lucids))
    each = torch.stack([v, -v])
    assert value(direction=each) == pytest.approx(float((along[0] - along[1]).mean()))
    one_hot = torch.eye(5, dtype=torch.float64)[3]
    assert value(direction=one_hot) == pytest.approx(value(channel=3))
    with pytest.raises(Invalid, match="not both"):
        excitement("2", 1, direction=v)
    with pytest.raises(Invalid, match="4 numbers in 2, which has 5 channels"):
        value(direction=v[:4])


def test_several_views_are_averaged() -> None:
    batch = images(2)
    views = torch.rand(6, 5, 3, 3, dtype=torch.float64)  # three of each
    each = excitement("2", [1, 3]).terms[0].measure.each({"2": views}, batch)
    expected = [float(views[0::2, 1].mean()), float(views[1::2, 3].mean())]
    assert each.tolist() == pytest.approx(expected)


def test_diversity_is_lucids() -> None:
    """Σ over i ≠ j of the normalised Gram matrices' products / pictures, by two loops, for each group."""
    a, batch = torch.rand(6, 5, 4, 3, dtype=torch.float64), images(6)
    expected = []
    for group in a.split(3):
        flat = group.flatten(2)
        grams = flat @ flat.transpose(1, 2)
        grams = grams / grams.flatten(1).norm(dim=1)[:, None, None]
        expected.append(
            sum(float((grams[i] * grams[j]).sum()) for i in range(3) for j in range(3) if i != j) / 3
        )
    total = float(diversity("2", 3)({"2": a}, batch)[0])
    assert total == pytest.approx(sum(expected))
    goal = excitement("2", [0, 0, 0, 4, 4, 4])
    scaled = float(diversity("2", 3, against=goal)({"2": a}, batch)[0])
    scales = [float(a[:3, 0].mean()), float(a[3:, 4].mean())]
    assert scaled == pytest.approx(sum(e * s for e, s in zip(expected, scales, strict=True)))
    with pytest.raises(Invalid, match="groups of 4 pictures"):
        diversity("2", 4)({"2": a}, batch)


# What comes of it


def test_units_find_their_colours() -> None:
    found = excite(colours(), [f"relu:{n}" for n in range(4)], size=24, steps=128).results()
    means = np.stack([each.images[0].mean((1, 2)).numpy() for each in found])
    assert means[:3].argmax(1).tolist() == [0, 1, 2] and means[3].max() < 0.3
    assert all(each.after > each.before for each in found)
    assert [str(each.unit) for each in found] == [f"relu:{n}" for n in range(4)]
    assert all(each.images.shape == (1, 3, 24, 24) for each in found)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_excites(preset: str) -> None:
    found = excite(deep(torch.float32), ["3:0", "3:1"], preset=preset, size=32, steps=25).results()
    assert all(each.after > each.before for each in found)
    assert all(0 <= float(each.images.min()) <= float(each.images.max()) <= 1 for each in found)


@pytest.mark.parametrize("preset", ["lucid", "maco", "yosinski4"])
def test_a_batch_is_its_units_alone(preset: str) -> None:
    options = {"preset": preset, "size": 16, "steps": 6, "pictures": 2, "diverse": 0.5}
    names = ["3:0", "3:3", "3:4"]
    together = excite(deep(), names, **options).results()
    one_by_one = excite(deep(), names, batch=1, **options).results()
    (alone,) = excite(deep(), names[1], **options).results()
    for each in zip(together, one_by_one, strict=True):
        torch.testing.assert_close(each[0].images, each[1].images, rtol=0, atol=1e-9)
        assert each[0].after == pytest.approx(each[1].after)
    torch.testing.assert_close(together[1].images, alone.images, rtol=0, atol=1e-9)
    assert not torch.equal(together[0].images, together[1].images)
    assert not torch.equal(alone.images[0], alone.images[1])


def test_macos_pictures_tell_what_of_them_to_show() -> None:
    """Crops that begin with half of the picture leave its corners to chance."""
    found = excite(deep(), ["3:0", "3:1"], preset="maco", size=64, steps=12, pictures=2).results()
    for each in found:
        assert each.opacity is not None and each.opacity.shape == (2, 1, 64, 64)
        middle, corner = each.opacity[..., 24:40, 24:40], each.opacity[..., :6, :6]
        assert float(middle.mean()) > 2 * float(corner.mean())
        assert 0 <= float(each.opacity.min()) < float(each.opacity.max()) == 1
    assert excite(deep(), "3:0", size=16, steps=1).results()[0].opacity is None


def test_the_authors_own_numbers() -> None:
    assert (PRESETS["lucid512"].steps, PRESETS["maco256"].steps) == (512, 256)
    work = excite(deep(torch.float32), ["3:0", "3:1", "3:2"], preset="maco256", size=224, steps=1)
    assert [len(batch) for batch in work.batches] == [1, 1, 1]
    look = LOOKS[PRESETS["maco256"].look]((256, 320))
    assert look.view(torch.rand(1, 3, 256, 320), None).shape == (32, 3, 224, 224)


def test_pictures_asked_to_differ_are_less_alike() -> None:
    def alike(diverse: float) -> float:
        (found,) = excite(deep(), "3:1", size=24, steps=40, pictures=3, diverse=diverse).results()
        answers = deep().frozen(torch.float64).features(found.images, ("3",))
        return float(diversity("3", 3)(answers, found.images)[0])

    assert alike(5.0) < alike(0.0) - 0.02


def test_a_neuron_paints_where_it_looks() -> None:
    options = {"preset": "yosinski3", "size": 21, "steps": 5}
    (centre,) = excite(deep(), "3:1", **options).results()
    (corner,) = excite(deep(), "3:1@0,0", **options).results()
    (start,) = excite(deep(), "3:1", preset="yosinski3", size=21, steps=1).results()
    for found, place in ((centre, (10, 10)), (corner, (2, 2))):
        moved = (found.images - start.images).abs().sum((0, 1))
        assert np.unravel_index(int(moved.argmax()), moved.shape) == pytest.approx(place, abs=2)


def test_a_place_stays_on_the_picture_when_it_is_padded() -> None:
    """Row 3 of 18, each of a 22 px picture's: at share 3.5 / 18 of it, 12 px farther on in 46."""
    work = excite(deep(), "3:1@3,9", size=22, steps=1)
    next(work)
    batch = work._now[0]
    assert batch._place(batch.units[0], 0) == pytest.approx((3.5 / 18, 9.5 / 18))
    assert batch._place(batch.units[0], 12)[0] == pytest.approx((3.5 / 18 * 22 + 12) / 46)


def test_a_direction_is_followed() -> None:
    warm = Direction("conv", torch.tensor([1.0, 0, -1, 0]), name="red, not blue")
    (found,) = excite(colours(), warm, size=20, steps=128).results()
    red, _, blue = found.images[0].mean((1, 2)).tolist()
    assert red > blue + 0.3 and str(found.unit) == "conv:red, not blue"


def test_a_class_of_a_network_of_one_size_and_one_colour() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        guest = wrap(Classifier(), mean=(0.5,), std=(0.25,))
    for preset in ("lucid", "yosinski3"):
        found = excite(guest, ["class:0", "class:2"], preset=preset, size=16, steps=20).results()
        assert all(each.after > each.before + 0.3 for each in found)
    assert guest.module.training and not any(m._forward_hooks for m in guest.module.modules())
    assert all(p.requires_grad for p in guest.module.parameters())


def test_steps_are_counted_over_all_batches() -> None:
    work = excite(deep(), ["1:0", "1:1", "1:2", "3:0", "3"], size=16, steps=3, batch=2)
    assert [len(batch) for batch in work.batches] == [2, 1, 1, 1]
    steps = list(work)
    assert [step.count for step in steps] == list(range(1, 13)) and {step.steps for step in steps} == {12}
    assert steps[0].frame.image.shape == (2, 3, 16, 16)
    assert len(work.so_far()) == 5


def test_what_is_begun_is_not_lost() -> None:
    work = excite(deep(), ["3:0", "3:1"], size=16, steps=8, batch=1)
    assert work.so_far() == []
    for step in work:
        if step.count == 11:
            break
    found = work.so_far()
    assert [str(each.unit) for each in found] == ["3:0", "3:1"]
    torch.testing.assert_close(found[1].images, step.frame.image.clamp(0, 1))


def test_the_same_seed_makes_the_same_pictures() -> None:
    one, two, other = (
        excite(deep(), "3:1", size=16, steps=4, seed=seed).results()[0].images for seed in (1, 1, 2)
    )
    assert torch.equal(one, two) and not torch.equal(one, other)


# Dead units


def test_a_unit_that_nothing_excited_is_dark_on_a_sheet() -> None:
    network, images = wrap(nn.Conv2d(3, 2, 1)), torch.full((1, 3, 24, 24), 0.5)
    images[:, 0] = 0.9
    found = [Excited(Target("conv", n), images, 0.0, after, None) for n, after in enumerate((0.0, 3.0))]
    assert [answer(one) for one in found] == ["nothing excited it", "0 to 3"]
    page = np.asarray(draw(found, 64, network))
    dead, living = page[48, 48], page[48, 48 + 72]
    assert np.ptp(dead.astype(int)) == 0 and dead.max() < 80 and tuple(living) == (230, 128, 128)


def test_dead_units_are_let_wake_up() -> None:
    """The redirected gradient of Lucid, restated: where a picture's own gradient is 0 at a ReLU."""
    conv = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        conv.weight.fill_(1.0)
        conv.bias.copy_(torch.tensor([-100.0, 0.0]))
    network = wrap(nn.Sequential(conv, nn.ReLU(), nn.Conv2d(2, 2, 1))).frozen()
    opened = Opened(network.module, like=network)

    def slopes(is_open: bool, channel: int) -> Tensor:
        opened.opened = is_open
        image = torch.full((1, 3, 4, 4), 0.5, requires_grad=True)
        goal = excitement("1", channel)
        total, _ = goal(opened.answers(image, goal.layers), image)
        return torch.autograd.grad(total, image)[0]

    assert not slopes(False, 0).any()
    torch.testing.assert_close(slopes(True, 0), torch.full((1, 3, 4, 4), -1 / 16))  # as without the ReLU
    assert torch.equal(slopes(True, 1), slopes(False, 1)), "a living one is left alone"
    assert not any(m._forward_hooks for m in network.module.modules())
    (found,) = excite(network, "1:0", size=8, steps=60).results()
    assert float(found.images.mean()) > 0.55, "it has begun to look for light"


def test_only_the_dead_pictures_of_a_batch_are_helped() -> None:
    network = deep().frozen(torch.float64)
    opened = Opened(network.module, like=network)
    opened.opened = True
    batch = images(2)
    alive = (network.features(batch, ("3",))["3"].flatten(2).amax(2) > 0).all(0)
    channel = int(alive.nonzero()[0])
    batch = batch.requires_grad_()
    goal = excitement("3", channel)
    gradients = [
        torch.autograd.grad(goal(net.answers(batch, ("3",)), batch)[0], batch)[0] for net in (opened, network)
    ]
    torch.testing.assert_close(*gradients)


# What is refused, and what stays


@pytest.mark.parametrize(
    ("targets", "options", "said"),
    [
        ([], {}, "nothing to excite"),
        ("3:9", {}, "no channel 9 in 3, which has 0 … 4"),
        ("3:0@99,0", {}, "no place 99,0 in 3"),
        ("relu9:0", {}, "no layer 'relu9'"),
        ("3:0", {"preset": "lucdi"}, "Did you mean 'lucid'"),
        ("3:0", {"precision": "float8"}, "precision is 'float8'"),
        ("3:0", {"pictures": 0}, "at least 1"),
        ("3:0", {"size": 0}, "at least 1 pixel"),
        (Target(None), {}, "which class"),
        (Direction("3", torch.ones(4)), {}, "holds 5 numbers, one a channel"),
    ],
)
def test_bad_wishes_are_refused(targets, options, said: str) -> None:
    network = deep(torch.float32)
    with pytest.raises(Invalid, match=said):
        excite(network, targets, **{"size": 16, "steps": 1, **options}).results()


def test_a_failure_leaves_nothing_behind() -> None:
    class Broken(nn.Module):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            Broken.calls += 1
            return x * float("nan") if Broken.calls > 6 else x

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), Broken())
    frozen = wrap(module).frozen()
    with pytest.raises(Diverged, match="excite 2:1"):
        excite(frozen, "2:1", size=12, steps=30, precision="float32").results()
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in frozen.module.modules())
    assert torch.is_grad_enabled()


def test_the_recipes_are_the_papers() -> None:
    """Yosinski et al. 2015, table 1, and thirty times their rates and progress."""
    table = {
        "yosinski1": (500, Sgd(3000, 60), 3),
        "yosinski2": (750, Sgd(3000, None), 3),
        "yosinski3": (1000, Sgd(3000, None), 3),
        "yosinski4": (1000, Sgd(3e9, 60), 3),
    }
    for name, (steps, optimiser, edits) in table.items():
        preset = PRESETS[name]
        assert (preset.steps, preset.optimiser) == (steps, optimiser)
        assert len(preset.edits(torch.full((3,), 0.5))) == edits
    assert [PRESETS[name].text.split("descent, ")[1].split("; ")[0] for name in table] == [
        "blur 0.5, norm 50",
        "decay 0.3, norm 20",
        "decay 0.0001, blur 1",
        "blur 0.5, contribution 90",
    ]


# The command


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(NET, encoding="utf-8")


def run(*args: str) -> Result:
    return CliRunner().invoke(
        cli, ["excite", "--net", "net.py:net", "--size", "16", "--steps", "3", "--device", "cpu", *args]
    )


def test_one_target_is_one_picture() -> None:
    result = run("--target", "3:2", "-o", "out/two.png", "--no-caption", "--steps", "12", "--run", "kept")
    assert result.exit_code == 0, result.output
    (snapshot,) = Path("kept/snapshots").iterdir()
    with Image.open(snapshot) as picture:
        assert (snapshot.name, picture.size) == ("0010.png", (16, 16))
    assert glimpse(torch.rand(3, 3, 16, 16)).width > 3 * 16  # several: side by side
    with Image.open("out/two.png") as picture:
        assert picture.size == (16, 16)
    card = json.loads(Path("out/two.png.run.json").read_text(encoding="utf-8"))
    assert (card["command"], card["status"], card["options"]["targets"]) == ("excite", "done", ["3:2"])


def test_maco_is_transparent_where_nothing_was_asked() -> None:
    words = ("--target", "3:2", "--preset", "maco", "--size", "48", "--no-caption")
    for more, mode in (((), "RGBA"), (("--opaque",), "RGB")):
        assert run(*words, *more, "-o", "maco.png").exit_code == 0
        with Image.open("maco.png") as picture:
            assert (picture.mode, picture.size) == (mode, (48, 48))
    assert run(*words, "--pictures", "2", "-o", "two.png").exit_code == 0


def test_many_targets_are_a_sheet_with_events() -> None:
    result = run("--targets", "3:0-1,3", "--target", "1:4", "--pictures", "2", "--json", "-o", "sheet.png")
    assert result.exit_code == 0, result.output
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["step"] for event in events[:-1]] == list(range(1, 7)) and events[0]["of"] == 6
    assert [unit["target"] for unit in events[-1]["units"]] == ["1:4", "3:0", "3:1", "3:3"]
    with Image.open("sheet.png") as picture:
        assert picture.height > picture.width, "a unit a row"


def test_all_of_a_layer_and_a_default() -> None:
    assert run("--targets", "3", "--json").exit_code == 0
    assert Path("excite-3-0-and-3-more.png").is_file()
    assert run().exit_code == 0
    listed = " ".join(run("--preset", "list").output.split())
    assert "rate 3000 (30 times the authors'" in listed, "what is not the authors' is said"
    assert listed.count("nearly blank") == 1 and "yosinski4" in listed


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--target", "3:9"), "no channel 9"),
        (("--targets", "3:5-2"), "runs backwards: write 2-5"),
        (("--targets", "3:x"), "names no targets"),
        (("--target", "conv9:1"), "no layer 'conv9'"),
        (("--preset", "deep"), "no preset 'deep'"),
        (("--target", "3:0", "-o", "out.xyz"), "the suffix '.xyz' is none of"),
    ],
)
def test_bad_words_are_one_line(words: tuple[str, ...], said: str) -> None:
    result = run(*words)
    assert result.exit_code == 2 and said in result.stderr and result.stderr.count("\n") == 1


def test_ctrl_c_keeps_the_pictures_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Excitation.__next__

    def interrupted(self: Excitation):
        step = there(self)
        if step.count == 3:
            raise KeyboardInterrupt
        return step

    monkeypatch.setattr(Excitation, "__next__", interrupted)
    result = run("--target", "3:0", "--target", "3:1", "--batch", "1", "-o", "so-far.png", "--steps", "2")
    assert result.exit_code == 130 and Path("so-far.png").is_file()
    assert "stopped: so-far.png: 2 units" in result.stderr
