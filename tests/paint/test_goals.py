"""Oracles: each preset restated in plain torch from its paper's page, and tables worked by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import innervision
from innervision.errors import Invalid
from innervision.network import Network, load, wrap
from innervision.paint.gatys import Painting
from innervision.paint.goals import Goals, stages_of
from innervision.paint.recipes import Recipe, recipe
from innervision.paint.sitting import Sitting, sit

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "weights"
SQUEEZENET = SHARED / "squeezenet1_0_deepcompressed_torchvision_f16.npz"
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # ImageNet's
LAYERS = {"content_layers": ("relu",), "style_layers": ("relu",)}

Draw = Callable[..., Image.Image]
Paint = Callable[..., Painting]


def alone(**preprocessing: Any) -> Network:
    """Make a network whose one layer answers its own input, brought above 0."""
    return wrap(nn.Sequential(), **preprocessing)


def goals_of(network: Network, **options: Any) -> Goals:
    one = Image.new("RGB", (4, 4), "grey")
    with_layers = Recipe(content_layers=(), style_layers=(), **options)
    return Goals(network, sit(one, [one], with_layers), with_layers)


def numbers(tensor: Tensor | float) -> list[float]:
    return torch.as_tensor(tensor).flatten().tolist()


# the units: of RGB, whatever the network's order

CAFFE = {"range": 255, "std": (1.0, 1.0, 1.0)}
BLUE_FIRST = {"order": "BGR", "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.8)}


@pytest.mark.parametrize(
    ("preprocessing", "low", "high"),
    [
        # mean ± 1.5 std, of R, G, B
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
         (0.1415, 0.12, 0.0685), (0.8285, 0.792, 0.7435)),
        ({"mean": (0.3, 0.2, 0.1), "std": (0.8, 0.5, 0.4)}, (-0.9, -0.55, -0.5), (1.5, 0.95, 0.7)),
        (BLUE_FIRST, (-0.9, -0.55, -0.5), (1.5, 0.95, 0.7)),
        # Caffe's mean is its own, 127.5 51 25.5 of R, G, B; its deviation says nothing: ImageNet's
        ({**CAFFE, "order": "BGR", "mean": (25.5, 51.0, 127.5)},
         (0.1565, -0.136, -0.2375), (0.8435, 0.536, 0.4375)),
        # nothing said at all: ImageNet's
        ({}, (0.1415, 0.12, 0.0685), (0.8285, 0.792, 0.7435)),
        # fed (255 x - 127) / 128
        ({"mean": (127.0,) * 3, "std": (128.0,) * 3, "range": 255},
         (-0.254902,) * 3, (1.25098,) * 3),
        ({"mean": (0.5,), "std": (0.25,)}, (0.125,) * 3, (0.875,) * 3),  # grey
    ],
)  # fmt: skip
@pytest.mark.parametrize("units", ["byte", "normalised"])
def test_clamp_s_bounds_are_in_rgb_whatever_the_units(preprocessing, low, high, units):
    goals = goals_of(alone(**preprocessing), optimiser="adam", clamp=1.5, units=units, late_steps=2)
    early, late = stages_of(innervision.core.gamut(), goals, (4, 4), 10, 2)
    (edit,) = early.edits
    assert numbers(edit(torch.full((1, 3, 1, 1), -9.0), 1)) == pytest.approx(low, abs=1e-6)
    assert numbers(edit(torch.full((1, 3, 1, 1), 9.0), 1)) == pytest.approx(high, abs=1e-5)
    assert (early.steps, late.steps, late.edits) == (8, 2, ())


def test_units_are_in_rgb():
    assert numbers(goals_of(alone(**BLUE_FIRST), units="normalised").unit()) == pytest.approx(
        [1.25, 2.0, 2.5]
    )
    assert numbers(goals_of(alone(**CAFFE), units="normalised").unit()) == pytest.approx(
        [1 / 0.229, 1 / 0.224, 1 / 0.225]
    )
    assert numbers(goals_of(alone(**BLUE_FIRST), units="byte").unit()) == [255.0] * 3


@pytest.mark.parametrize(
    ("preprocessing", "byte", "normalised"),
    [
        ({"range": 255}, 1.0, 0.01735365),  # (1/.229 + 1/.224 + 1/.225) / 3 / 255
        ({"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}, 57.62476, 1.0),
        (BLUE_FIRST, 133.0435, 1.0),  # 255 / ((2.5 + 2 + 1.25) / 3)
        ({"mean": (127.0,) * 3, "std": (128.0,) * 3, "range": 255}, 128.0, 1.0),
    ],
)
def test_activations_are_brought_to_the_units(preprocessing, byte, normalised):
    for units, scale in (("byte", byte), ("normalised", normalised)):
        assert goals_of(alone(**preprocessing), units=units).activation_scale() == pytest.approx(scale, 1e-5)


# presets, restated


def vgg(state: dict[str, Tensor], image: Tensor, pool: Callable[..., Tensor] = F.max_pool2d):
    """Run VGG19 plainly: sRGB 0..1 -> what each ReLU answers."""
    x, found = image * 255 - torch.tensor([123.68, 116.779, 103.939]).view(3, 1, 1), {}
    for block, depth in enumerate((2, 2, 4, 4, 4), 1):
        for number in range(1, depth + 1):
            name = f"{block}_{number}"
            x = F.relu(F.conv2d(x, state[f"conv{name}.weight"], state[f"conv{name}.bias"], padding=1))
            found[f"relu{name}"] = x
        x = pool(x, 2)
    return found


def squeezenet(state: dict[str, Tensor], image: Tensor):
    """Run SqueezeNet 1.0 plainly as far as fire5."""

    def conv(name: str, x: Tensor, **how: int) -> Tensor:
        return F.relu(F.conv2d(x, state[f"{name}.weight"], state[f"{name}.bias"], **how))

    x = conv("conv1", (image - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1), stride=2)
    found = {"relu1": x}
    x = F.max_pool2d(x, 3, 2, ceil_mode=True)
    for name in ("fire2", "fire3", "fire4", "fire5"):
        x = conv(f"{name}.squeeze", x)
        x = torch.cat((conv(f"{name}.expand1x1", x), conv(f"{name}.expand3x3", x, padding=1)), 1)
        found[name] = x
        x = F.max_pool2d(x, 3, 2, ceil_mode=True) if name == "fire4" else x
    return found


def inner(a: Tensor) -> Tensor:
    """Return Gatys' G as printed, the sum over positions."""
    return torch.einsum("cij,dij->cd", a[0], a[0])


def outside(x: Tensor) -> float:
    y = 255 * x
    return float((torch.relu(-y) ** 2 + torch.relu(y - 255) ** 2).mean())


def as_gatys(see, x: Tensor, p: Tensor, a: Tensor) -> dict[str, float]:
    here, content, style = see(x), see(p), see(a)
    found = {"content relu4_2": float(((here["relu4_2"] - content["relu4_2"]) ** 2).mean())}
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        _, c, h, w = here[layer].shape
        square = ((inner(here[layer]) / (h * w) - inner(style[layer]) / (h * w)) ** 2).sum()
        found[f"style {layer}"] = float(1000 / c**4 * square)
    return found | {"gamut": 1e4 * outside(x)}


def as_article(see, x: Tensor, p: Tensor, a: Tensor, layers: tuple[str, ...], fed: float):
    """Restate the article; `fed`: by what the input must be multiplied to be that of its own network."""
    here, content, style = see(x), see(p), see(a)
    first, *others = layers
    found = {f"content {first}": float(0.06 * (fed**2 * (here[first] - content[first]) ** 2).sum())}
    for layer, weight in zip(others, (300000.0, 1000.0, 15.0, 3.0), strict=True):
        g, target = (inner(fed * each[layer]) / each[layer].numel() for each in (here, style))
        found[f"style {layer}"] = float(weight * ((g - target) ** 2).sum())
    y = (x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)
    across, down = y[..., :, 1:] - y[..., :, :-1], y[..., 1:, :] - y[..., :-1, :]
    return found | {"smooth": float(0.02 * ((across**2).sum() + (down**2).sum()))}


def as_titu1994(see, x: Tensor, p: Tensor, a: Tensor) -> dict[str, float]:
    here, content, style = see(x), see(p), see(a)
    pixels = x.shape[-2] * x.shape[-1]
    found = {"content relu5_2": float(0.025 * ((here["relu5_2"] - content["relu5_2"]) ** 2).sum())}
    for layer in ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"):
        square = ((inner(here[layer]) - inner(style[layer])) ** 2).sum()
        found[f"style {layer}"] = float(square / (4 * 3**2 * pixels**2) / 5)
    y = 255 * x
    right = (y[..., :-1, :-1] - y[..., :-1, 1:]) ** 2
    down = (y[..., :-1, :-1] - y[..., 1:, :-1]) ** 2
    return found | {"smooth": float(8.5e-5 * ((right + down) ** 1.25).sum()), "gamut": 1e4 * outside(x)}


SAME_STRIDE = ("relu3_1", "relu2_1", "relu3_2", "relu4_1", "relu4_2")
CAFFE_FED = float((1 / STD).mean()) / 255


@pytest.mark.parametrize(
    ("preset", "net", "restated"),
    [
        ("gatys", "vgg19", as_gatys),
        ("article", "vgg19", lambda *all: as_article(*all, SAME_STRIDE, CAFFE_FED)),
        pytest.param(
            "article",
            "squeezenet1_0",
            lambda *all: as_article(*all, ("fire2", "relu1", "fire3", "fire4", "fire5"), 1.0),
            marks=pytest.mark.skipif(not SQUEEZENET.is_file(), reason="no SqueezeNet 1.0 beside this clone"),
        ),
        ("titu1994", "vgg19", as_titu1994),
    ],
)  # fmt: skip
def test_a_preset_is_its_restatement(preset, net, restated):
    weights = str(SQUEEZENET) if net == "squeezenet1_0" else None
    content, style = (
        Image.fromarray(
            np.asarray(Image.open(innervision.samples.path(name)).convert("RGB"))[50:114, 100:164]
        )
        for name in ("chelsea", "harvest")
    )
    painting = innervision.stylize(
        content,
        style,
        preset=preset,
        net=net,
        weights=weights,
        size=64,
        stages=None,
        precision="float32",
        device="cpu",
    )
    state = load(net, weights_file=weights).module.state_dict()
    p, a = (torch.tensor(np.asarray(each)).permute(2, 0, 1)[None] / 255 for each in (content, style))
    moved = p + 0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    goal = painting.goals.objective((64, 64))
    run = vgg if net == "vgg19" else squeezenet
    for x in (p, moved):
        want = restated(lambda image: run(state, image), x, p, a)
        with torch.no_grad():
            total, values = goal(painting.network.features(x, goal.layers), x)
        assert list(values) == list(want)
        assert {k: float(v) for k, v in values.items()} == pytest.approx(want, rel=1e-4, abs=1e-3)
        assert float(total) == pytest.approx(sum(want.values()), rel=1e-4)
    assert all(value > 0 for value in want.values())
    assert next(painting).values == pytest.approx(
        restated(lambda image: run(state, image), p, p, a), rel=1e-4, abs=1e-3
    )


def test_weights_keep_their_meaning_across_sizes(picture: Draw):
    """The same smooth pictures at 64 px, and at 128 with their mirror images: within a factor of 1.5.

    But for relu5_1, whose 4x4 positions at 64 px all see the frame of zeros. (A sum would grow 4 times, and
    the square of a Gram matrix that is not divided 16 times.)
    """

    def mirrored(image: Image.Image, times: int) -> Image.Image:
        pixels = np.asarray(image)
        both = np.concatenate((pixels, pixels[:, ::-1]), 1)
        return image if times == 1 else Image.fromarray(np.concatenate((both, both[::-1]), 0))

    found: list[dict[str, float]] = []
    for times in (1, 2):
        content, style, other = (
            mirrored(picture(64, 64, seed, low, high), times)
            for seed, low, high in ((1, 60, 200), (2, 60, 200), (3, 0, 255))
        )
        painting = innervision.stylize(
            content, style, size=64 * times, stages=None, precision="float32", device="cpu", tv_weight=1.0
        )
        goal = painting.goals.objective(painting.sitting.size)
        x = 1.4 * torch.tensor(np.asarray(other)).permute(2, 0, 1)[None] / 255 - 0.2  # leaves the gamut
        with torch.no_grad():
            values = goal(painting.network.features(x, goal.layers), x)[1]
        found.append({name: float(value) for name, value in values.items()})
    ratios = {name: found[1][name] / value for name, value in found[0].items()}
    assert 0.2 < ratios.pop("style relu5_1") < 1  # measured .26
    assert all(1 / 1.5 < ratio < 1.5 for ratio in ratios.values()), ratios  # measured .73 to 1.03


# styles


def test_several_styles_ask_for_the_weighted_mean_of_their_grams(paint: Paint, picture: Draw):
    styles = [picture(24, 32, seed) for seed in (2, 3, 4)]
    for weights, shares in (((3.0, 1.0, 0.0), (0.75, 0.25, 0.0)), (None, (1 / 3, 1 / 3, 1 / 3))):
        painting = paint(style=styles, style_weights=weights)
        state = painting.network.module.state_dict()
        scale = 255.0  # the user's network is fed 0..1
        want = torch.zeros(4, 4)
        for share, style in zip(shares, styles, strict=True):
            image = torch.tensor(np.asarray(style)).permute(2, 0, 1)[None] / 255
            answer = scale * F.relu(F.conv2d(image, state["conv1.weight"], state["conv1.bias"], padding=1))
            want += share * inner(answer) / (24 * 32)
        terms = {term.name: term for term in painting.goals.objective((24, 32)).terms}
        assert torch.allclose(terms["style relu1"].measure.target[0], want, rtol=1e-4)
        assert terms["style relu1"].weight == pytest.approx(1000 / 16)  # 1/C² of 4 channels


@pytest.mark.parametrize(
    ("options", "at_full", "at_half"),
    [
        ({}, (39, 19), (19, 9)),  # as many pixels as 32x24 and 16x12 have: 741, 171
        ({"style_size": 80}, (80, 40), (40, 20)),
        ({"style_size": 16}, (16, 8), (8, 4)),
    ],
)
def test_the_style_is_looked_at_in_one_proportion(paint: Paint, picture: Draw, options, at_full, at_half):
    goals = paint(style=picture(100, 50, 2), **options).goals
    assert goals.sitting.size == (24, 32)
    assert tuple(goals.styles((24, 32))[0].shape[-2:]) == at_full
    assert tuple(goals.styles((12, 16))[0].shape[-2:]) == at_half


def test_a_style_of_the_painting_s_shape_is_looked_at_at_its_size(paint: Paint, picture: Draw):
    image = picture(256, 384, 2)  # as many pixels as 128x85 has would be 127x85
    painting = paint(image, image, size=128)
    assert tuple(painting.goals.styles((85, 128))[0].shape[-2:]) == painting.sitting.size == (85, 128)
    assert next(painting).total < 1e-3


def test_style_weights_and_layer_weights_are_counted(paint: Paint, picture: Draw):
    with pytest.raises(Invalid, match="2 style weights for 1 style pictures: give one each"):
        paint(style_weights=(1.0, 2.0))
    with pytest.raises(Invalid, match=r"3 style layer weights for 2 layers \(relu1, relu2\)"):
        paint(style_layer_weights=(1.0, 1.0, 1.0))
    with pytest.raises(Invalid, match=r"2 content layer weights for 1 layers \(relu2\)"):
        paint(content_layer_weights=(1.0, 1.0))
    with pytest.raises(Invalid, match="at least one style picture"):
        innervision.stylize(picture(8, 8, 1), [])


def test_layers_of_the_user_s(paint: Paint, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    painting = paint(
        content_layers=("conv1", "relu2"),
        content_layer_weights=(2.0, 0.5),
        style_layers=("pool1",),
        style_layer_weights=(7.0,),
    )
    terms = painting.goals.objective((24, 32)).terms
    assert [(term.name, term.weight) for term in terms] == [
        ("content conv1", 2.0), ("content relu2", 0.5), ("style pool1", 7000.0), ("gamut", 1e4)
    ]  # fmt: skip
    with pytest.raises(Invalid, match=r"no layer 'relu3'.*which has conv1, .*Did you mean 'relu"):
        paint(style_layers=("relu3",))
    monkeypatch.chdir(tmp_path)
    for missing in ({"content_layers": None}, {"style_layers": None}):  # though its file is called vgg…
        with pytest.raises(Invalid, match=r"no usual layers are known.*--style-layers.*it has conv1, relu1"):
            paint(**missing, net=Path(guest).name)


# terms of the picture itself, by hand

ROWS = torch.tensor([[0.0, 0.2, 0.1], [0.4, 0.4, 0.9]])  # one channel, 2 x 3


@pytest.mark.parametrize(
    ("options", "want"),
    [
        # right .2 -.1 0 .5, down .4 .2 .8; squares sum .30 and .84, of 4 and 3 neighbours
        ({}, 255**2 * (0.30 / 4 + 0.84 / 3)),
        ({"tv_form": "sum"}, 255**2 * 1.14),
        ({"tv_form": "sum", "tv_power": 1.0}, 255 * 2.2),
        # of the two that have both: .2² + .4², .1² + .2²
        ({"tv_form": "pairs", "tv_power": 1.0}, 255**2 * 0.25),
        ({"tv_form": "pairs", "tv_power": 2.0}, 255**4 * (0.2**2 + 0.05**2)),
        ({"tv_form": "sum", "units": "normalised"}, 1.14 * (1.25**2 + 2**2 + 2.5**2) / 3),
    ],
)
def test_total_variation_by_hand(options, want):
    goals = goals_of(alone(**BLUE_FIRST), content_weight=0.0, style_weight=0.0, gamut_weight=0.0,
                     tv_weight=3.0, **options)  # fmt: skip
    total, values = goals.objective((2, 3))({}, ROWS.expand(1, 3, 2, 3))
    channels = 1 if options.get("tv_form", "mean") == "mean" else 3  # a mean is over channels too
    assert float(total) == float(values["smooth"]) == pytest.approx(3 * want * channels, rel=1e-5)


def test_gamut_by_hand():
    goals = goals_of(alone(), content_weight=0.0, style_weight=0.0, gamut_weight=2.0)
    x = torch.tensor([-0.1, 0.0, 0.5, 1.0, 1.2, 0.3]).view(1, 3, 1, 2)
    assert float(goals.objective((1, 2))({}, x)[0]) == pytest.approx(2 * 255**2 * (0.01 + 0.04) / 6)


# sizes


def sitting(h: int, w: int, **options: Any) -> Sitting:
    return sit(Image.new("RGB", (w, h)), ["blank"], recipe(**options))


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"size": 300}, (200, 300)),
        ({"size": 4096}, (2731, 4096)),
        ({"size": None}, (400, 600)),
        ({"pixels": 60_000}, (200, 300)),
        ({"pixels": 60_000, "size": 64}, (200, 300)),  # pixels, instead of a size
        ({"size": 1}, (1, 1)),
    ],
)
def test_sizes(options, size):
    assert sitting(400, 600, **options).size == size


def test_a_blank_content_takes_the_style_s_shape():
    assert sit("blank", ["blank", Image.new("RGB", (30, 60))], recipe(size=20)).size == (20, 10)
    with pytest.raises(Invalid, match="cannot both be blank"):
        sit("blank", ["blank"], recipe())


@pytest.mark.parametrize(
    ("options", "stages"),
    [
        ({"size": 300}, (((100, 150), 40), ((200, 300), 100))),  # half of 100 is below 64
        ({"size": 96}, (((64, 96), 100),)),
        ({"size": 384, "steps": 7, "coarse_steps": 3}, (((64, 96), 3), ((128, 192), 3), ((256, 384), 7))),
        ({"stages": None, "size": 300}, (((200, 300), 100),)),
        ({"stages": ((30, 4), (61, 5))}, (((20, 30), 4), ((41, 61), 5))),
    ],
)
def test_stages(options, stages):
    found = sitting(400, 600, **options)
    assert found.stages == stages
    assert found.size == stages[-1][0]
    assert found.evaluations == sum(steps for _, steps in stages)


def test_at_most_five_halvings():
    wide = sit(Image.new("L", (1, 1)), ["blank"], recipe(size=8000))
    assert [h for (h, _), _ in wide.stages] == [250, 500, 1000, 2000, 4000, 8000]


# colour


def colours(image: Tensor) -> Tensor:
    return image[0].flatten(1).double()


def test_match_gives_the_style_the_content_s_mean_and_covariance(paint: Paint):
    goals = paint(color="match").goals
    content, style = colours(goals.content((24, 32))), colours(goals.styles((24, 32))[0])
    assert torch.allclose(style.mean(1), content.mean(1), atol=1e-4)
    assert torch.allclose(torch.cov(style), torch.cov(content), atol=1e-4)
    plain = colours(paint().goals.styles((24, 32))[0])
    assert not torch.allclose(plain.mean(1), content.mean(1), atol=1e-2)


def test_match_by_histogram_gives_the_style_the_content_s_values(paint: Paint, picture: Draw):
    content = np.asarray(picture(24, 32, 1))
    darker = np.where(content < 128, content - 40, content - 10)  # no linear map undoes it
    darker = np.random.default_rng(0).permutation(darker.reshape(-1, 3)).reshape(content.shape)
    goals = paint(
        Image.fromarray(content), Image.fromarray(darker), color="match", color_match="histogram"
    ).goals
    want, style = colours(goals.content((24, 32))), colours(goals.styles((24, 32))[0])
    assert torch.allclose(style.sort(1).values, want.sort(1).values, atol=1e-6)


def test_a_blank_content_has_no_colours_to_give(paint: Paint):
    matched, free = (
        paint(content="blank", color=color).goals.styles((24, 24))[0] for color in ("match", "free")
    )
    assert torch.equal(matched, free)
