"""Comparisons: CKA against its formulas, moves against whole pixels and quarter turns, parts by hand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision import weights
from innervision.cli import cli
from innervision.errors import Diverged, Invalid
from innervision.network import Network, wrap
from innervision.see import correspondence as parts
from innervision.see import invariance as moves
from innervision.see.compare import Similarity, centred, cka, grams, heat_map
from innervision.see.correspondence import correspondence
from innervision.see.invariance import MOVES, invariance, move
from innervision.see.pictures import open_pictures


def small(seed: int = 0, width: int = 6) -> Network:
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Conv2d(3, width, 3), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(width, width, 3), nn.ReLU(inplace=True)),
    )
    return wrap(net.double(), name=f"small{seed}")


def noise(count: int, side: int = 10, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)


def features(network: Network, pictures: np.ndarray, layer: str) -> np.ndarray:
    image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    return network.features(image, (layer,))[layer].detach().flatten(1).double().numpy()


def biased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """tr(KHLH) / (n-1)², as Kornblith et al. 2019 write it in eq. 3."""
    n = len(x)
    h = np.eye(n) - 1 / n
    return float(np.trace(x @ x.T @ h @ (y @ y.T) @ h)) / (n - 1) ** 2


def unbiased_hsic(x: np.ndarray, y: np.ndarray) -> float:
    """Song et al. 2012, eq. 5, term by term."""
    n = len(x)
    k, l = x @ x.T, y @ y.T
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    one = np.ones(n)
    second = (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    return float(np.trace(k @ l) + second - 2 / (n - 2) * (one @ k @ l @ one)) / (n * (n - 3))


def ratio(hsic: object, x: np.ndarray, y: np.ndarray) -> float:
    return hsic(x, y) / math.sqrt(hsic(x, x) * hsic(y, y))  # type: ignore[operator]


def last(*args: object, **options: object) -> Similarity:
    *_, found = cka(*args, **options)  # type: ignore[arg-type]
    return found


class Fixed(nn.Module):
    """Answers given features, row by row of the pictures, whose first value is their number."""

    def __init__(self, *features: np.ndarray) -> None:
        super().__init__()
        for number, rows in enumerate(features):
            layer = nn.Embedding(*rows.shape).double()
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(rows))
            self.add_module(f"f{number}", layer)

    def forward(self, x: Tensor) -> Tensor:
        number = (x[:, 0, 0, 0] * 255).round().long()
        return torch.cat([layer(number) for layer in self.children()], 1)


def given(*features: np.ndarray) -> tuple[Network, np.ndarray]:
    pictures = np.zeros((len(features[0]), 2, 2, 3), np.uint8)
    pictures[..., 0] = np.arange(len(pictures))[:, None, None]
    return wrap(Fixed(*features)), pictures


# CKA


@pytest.mark.parametrize("biased", [True, False])
def test_all_layers_of_two_networks_agree_with_the_gram_formulas(biased: bool) -> None:
    one, two, pictures = small(0), small(1, width=9), noise(20)
    found = last(one, pictures, other=two, batch_size=20, biased=biased)
    assert (found.rows, found.columns) == (("1", "4"), ("1", "4"))
    hsic = biased_hsic if biased else unbiased_hsic
    for row, name in enumerate(found.rows):
        for column, other in enumerate(found.columns):
            want = ratio(hsic, features(one, pictures, name), features(two, pictures, other))
            assert found.matrix[row, column] == pytest.approx(want, rel=1e-10)


@pytest.mark.parametrize("biased", [True, False])
def test_rotating_and_scaling_features_changes_nothing(biased: bool) -> None:
    draw = np.random.default_rng(0)
    x = draw.normal(size=(24, 7))
    q, _ = np.linalg.qr(draw.normal(size=(7, 7)))
    network, pictures = given(x, x @ q, 3e-4 * x + 5, draw.normal(size=(24, 5)))
    found = last(network, pictures, ["f0", "f1", "f2", "f3"], biased=biased)
    np.testing.assert_allclose(found.matrix[:3, :3], 1, rtol=0, atol=1e-10)
    np.testing.assert_allclose(found.matrix, found.matrix.T, atol=1e-14)
    np.testing.assert_allclose(found.matrix[3, :3], found.matrix[3, 0], atol=1e-10)


def test_a_stretch_of_one_direction_is_noticed() -> None:
    x = np.random.default_rng(0).normal(size=(24, 7))
    network, pictures = given(x, x * [4, 1, 1, 1, 1, 1, 1])
    assert last(network, pictures, ["f0", "f1"]).matrix[0, 1] < 0.9


def test_batches_are_averaged_before_they_are_divided() -> None:
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(30, 6)), draw.normal(size=(30, 4))
    network, pictures = given(x, y + x[:, :4])
    y = y + x[:, :4]
    cuts = [slice(0, 15), slice(15, 30)]
    cross, own, other = (
        sum(unbiased_hsic(a[cut], b[cut]) for cut in cuts) for a, b in ((x, y), (x, x), (y, y))
    )
    steps = list(cka(network, pictures, ["f0", "f1"], batch_size=16))
    assert [step.done for step in steps] == [15, 30]
    assert steps[1].matrix[0, 1] == pytest.approx(cross / math.sqrt(own * other), rel=1e-10)
    assert steps[0].matrix[0, 1] == pytest.approx(ratio(unbiased_hsic, x[:15], y[:15]), rel=1e-10)


def test_unrelated_wide_features_look_alike_only_to_the_biased_form() -> None:
    draw = np.random.default_rng(2)
    network, pictures = given(draw.normal(size=(40, 400)), draw.normal(size=(40, 400)))
    assert last(network, pictures, ["f0", "f1"], biased=True).matrix[0, 1] > 0.85
    assert abs(last(network, pictures, ["f0", "f1"], batch_size=20).matrix[0, 1]) < 0.1


def test_the_products_of_centred_matrices_are_hsic() -> None:
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(9, 4)), draw.normal(size=(9, 3))
    k, l = (torch.from_numpy(f @ f.T) for f in (x, y))
    assert float((centred(k) * centred(l)).sum()) == pytest.approx(unbiased_hsic(x, y), rel=1e-12)
    product = (centred(k, biased=True) * centred(l, biased=True)).sum()
    assert float(product) == pytest.approx(biased_hsic(x, y), rel=1e-12)


def test_grams_do_not_depend_on_how_many_pictures_go_together() -> None:
    draw = torch.Generator().manual_seed(0)
    image = torch.rand(7, 3, 200, 200, generator=draw)  # six at once
    network = small()
    flat = network.features(image, ("4",))["4"].detach().flatten(1)
    flat = flat - flat.mean(0)
    torch.testing.assert_close(grams(network, ("4",), image)[0], flat @ flat.T)


def test_grams_are_the_same_a_few_layers_at_a_time() -> None:
    image = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    network, calls = small(), []
    network.module.register_forward_pre_hook(lambda *_: calls.append(1))
    whole = grams(network, ("1", "4"), image)
    assert len(calls) == 2  # for the sizes, and for all layers
    torch.testing.assert_close(grams(network, ("1", "4"), image, room=1), whole, rtol=0, atol=0)
    assert len(calls) == 2 + 3


def test_a_layer_that_always_answers_the_same_is_like_nothing() -> None:
    x = np.random.default_rng(4).normal(size=(12, 3))
    network, pictures = given(x, np.full((12, 3), 0.1))
    for biased in (True, False):
        matrix = last(network, pictures, ["f0", "f1"], biased=biased).matrix
        assert matrix[0, 0] == pytest.approx(1)
        assert np.isnan(matrix[0, 1]) and np.isnan(matrix[1]).all()


def test_other_layers_alone_mean_the_same_network() -> None:
    found = last(small(), noise(12), ["1", "4"], other_layers=["4"])
    assert found.matrix.shape == (2, 1)
    assert found.matrix[1, 0] == pytest.approx(1)


def test_damaged_pictures_are_left_out(tmp_path: Path) -> None:
    for number, pixels in enumerate(noise(10)):
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_text("none")
    network = small()
    found = last(network, open_pictures([tmp_path], size=10))
    assert [name for name, _ in found.skipped] == ["4.png"]
    want = last(network, np.delete(noise(10), 4, 0)).matrix
    np.testing.assert_allclose(found.matrix, want, rtol=1e-12)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(Invalid, match="3 pictures are too few"):
        cka(small(), noise(3))
    with pytest.raises(Invalid, match="batch_size is 2"):
        cka(small(), noise(9), batch_size=2)
    with pytest.raises(Invalid, match="no layer 'x'"):
        cka(small(), noise(9), ["x"])
    broken = small()
    with torch.no_grad():
        broken.module[0].bias.fill_(torch.inf)
    with pytest.raises(Diverged, match="layer '1'"):
        last(broken, noise(9))


def test_everything_borrowed_is_given_back() -> None:
    network = small()
    network.module.train()
    steps = cka(network, noise(12), batch_size=4)
    next(steps)
    assert torch.is_grad_enabled()
    assert network.module.training
    assert not any(m._forward_hooks for m in network.module.modules())


def test_a_heat_map_is_palest_where_layers_are_alike() -> None:
    matrix = np.array([[1, 0.1], [0.1, np.nan]])
    page = np.asarray(heat_map(Similarity(("a", "b"), ("a", "b"), matrix, 9, 9)))
    assert (page == (252, 253, 191)).all(-1).any()  # magma's end
    assert (page == 128).all(-1).sum() > 500  # what is no number
    heat_map(Similarity(("a",), tuple(map(str, range(30))), np.zeros((1, 30)), 9, 9))


# moved pictures


def test_not_moving_is_the_picture_itself() -> None:
    image = torch.rand(1, 3, 9, 12)
    for kind, still in (("shift", 0.0), ("scale", 1.0), ("rotation", 0.0), ("rotation", 360.0)):
        assert move(image, kind, still) is image


def test_whole_pixels_and_quarter_turns_move_exactly() -> None:
    image = torch.rand(1, 3, 8, 8, dtype=torch.float64)
    down = move(image, "shift", 2 / 8)
    torch.testing.assert_close(down[:, :, 3:-1], image[:, :, 1:-3])
    torch.testing.assert_close(down[:, :, :2], image[:, :, :2].flip(2))  # mirrored
    for quarters in (1, 2, 3):
        turned = move(image, "rotation", 90.0 * quarters)
        torch.testing.assert_close(turned, image.rot90(quarters, (2, 3)))  # counter-clockwise


def test_scaling_enlarges_about_the_middle() -> None:
    y, x = torch.meshgrid(torch.linspace(-1, 1, 33), torch.linspace(-1, 1, 33), indexing="ij")
    disc = (y.square() + x.square() < 0.16).float().expand(1, 3, -1, -1)
    areas = [float(move(disc, "scale", factor).mean()) for factor in (0.8, 1.0, 1.5)]
    assert areas[2] / areas[1] == pytest.approx(2.25, rel=0.05)
    assert areas[0] / areas[1] == pytest.approx(0.64, rel=0.05)


def test_features_do_not_move_at_the_identity_and_move_as_the_formula_says() -> None:
    network = small()
    image = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    found = invariance(network, image, "shift", amounts=(-0.25, 0.0, 0.25))
    assert list(found.distances) == ["1", "4"]
    for name, distances in found.distances.items():
        assert distances[1] == 0
        moved, own = (
            network.features(each, (name,))[name].detach().flatten()
            for each in (move(image, "shift", 0.25), image)
        )
        assert distances[2] == pytest.approx(float((moved - own).norm() / own.norm()), rel=1e-6)
    assert found.chosen is None and found.probabilities is None


@pytest.mark.parametrize("kind", MOVES)
def test_the_usual_amounts_hold_the_identity(kind: str) -> None:
    found = invariance(small(), torch.rand(1, 3, 64, 64), kind)
    assert len(found.distances["4"]) == len(MOVES[kind])
    still = MOVES[kind].index(1.0 if kind == "scale" else 0.0)
    assert found.distances["4"][still] == 0
    assert (np.delete(found.distances["4"], still) > 0.01).all()


def test_a_global_mean_does_not_notice_a_quarter_turn() -> None:
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4), nn.Softplus())
    image = torch.rand(1, 3, 16, 16)
    found = invariance(wrap(net), image, "rotation", ["0"], amounts=(0.0, 90.0, 45.0))
    assert found.distances["0"][:2] == pytest.approx([0, 0], abs=1e-6)
    assert found.probabilities is not None and len(found.probabilities) == 3
    likely = net(image).detach().softmax(1)[0]
    assert found.chosen == int(likely.argmax())
    assert found.probabilities[:2] == pytest.approx([float(likely.max())] * 2)


def test_moves_that_make_no_sense_are_refused() -> None:
    image = torch.rand(1, 3, 8, 8)
    with pytest.raises(Invalid, match="no way to move a picture 'shear'"):
        invariance(small(), image, "shear")
    with pytest.raises(Invalid, match="no amounts"):
        invariance(small(), image, "shift", amounts=())
    with pytest.raises(Invalid, match="leaves no picture"):
        move(image, "scale", 0)
    with pytest.raises(Invalid, match="one picture"):
        invariance(small(), image.expand(2, -1, -1, -1), "shift")
    silent = wrap(nn.Sequential(nn.Threshold(9, 0)))
    with pytest.raises(Invalid, match="answers 0 to the picture"):
        invariance(silent, image, "shift", ["0"])


# hidden parts


def test_hidden_parts_are_compared_by_signs() -> None:
    network = wrap(nn.Sequential(nn.Identity()))
    images = torch.full((3, 3, 4, 4), 0.5)
    images[0, :, 0, 0], images[1, :, 0, 0], images[2, :, 1, 1] = 1, 1, 0
    boxes = [(0, 0, 1, 1), (0, 0, 1, 1), (1, 1, 1, 1)]
    (found,) = correspondence(
        network, images, boxes, ["0"], draws=1, generator=torch.Generator().manual_seed(0)
    )
    # signs: + at one of 16 places, the same, - at another: pairs differ at 0, 2 and 2 places
    assert found.part == pytest.approx(4 / 3 / 16)
    assert found.spread == pytest.approx(np.std([0, 2 / 16, 2 / 16]))


def test_the_same_part_of_equal_pictures_changes_alike_and_random_parts_do_not() -> None:
    image = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(0)).expand(4, -1, -1, -1)
    draw = torch.Generator().manual_seed(1)
    found = correspondence(small(), image, [(4, 4, 5, 5)] * 4, ["1", "4"], generator=draw)
    assert [one.layer for one in found] == ["1", "4"]
    assert all(one.part == 0 and one.chance > 0.05 for one in found)
    parts.draw(found, title="parts")


def test_parts_that_make_no_sense_are_refused() -> None:
    images = torch.rand(2, 3, 8, 8)
    with pytest.raises(Invalid, match="1 boxes"):
        correspondence(small(), images, [(0, 0, 2, 2)], ["1"])
    with pytest.raises(Invalid, match="box 7,0,2,2"):
        correspondence(small(), images, [(0, 0, 2, 2), (7, 0, 2, 2)], ["1"])


# the command


GUEST = """
import torch
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 6, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2),
                               torch.nn.Conv2d(6, 8, 3), torch.nn.ReLU())
"""


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "guest.py").write_text(GUEST)
    for number, pixels in enumerate(noise(6, side=40)):
        Image.fromarray(pixels).save(f"{number}.png")
    return [f"{number}.png" for number in range(6)]


def compare(*args: str) -> Result:
    return CliRunner().invoke(cli, ["compare", *args, "--net", "guest.py:net", "--size", "32"])


def table() -> list[list[str]]:
    with Path("compare.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_the_command_compares_layers(photos: list[str]) -> None:
    found = compare(*photos, "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert result["rows"][0] == ["", "1", "4"]
    assert float(table()[1][1]) == pytest.approx(1)
    Image.open("compare.png").load()
    assert json.loads(Path("compare.png.run.json").read_text())["command"] == "compare"
    again = compare(*photos, "--net2", "guest.py:net", "--layers2", "4", "--biased", "--limit", "5")
    assert again.exit_code == 0, again.output
    assert table()[0] == ["", "4"]
    assert float(table()[2][1]) == pytest.approx(1)
    assert "5 pictures" in again.stderr


def test_the_command_moves_a_picture(photos: list[str]) -> None:
    found = compare("--invariance", photos[0], "--layers", "4")
    assert found.exit_code == 0, found.output
    assert table()[0] == ["move", "amount", "4", "probability"]
    assert {row[0] for row in table()[1:]} == set(MOVES)
    assert moves.MOVES is MOVES


def test_the_command_follows_a_unit(photos: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        torch.manual_seed(seed)
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.ReLU())
        weights.save(net, f"epoch{seed}.safetensors")
    files = ("--checkpoints", "epoch0.safetensors", "epoch1.safetensors")
    words = ["compare", *photos, "--net", "guest.py:net", "--size", "32", "--target", "4:2", *files]
    found = CliRunner().invoke(cli, words)
    assert found.exit_code == 0, found.output
    assert [row[0] for row in table()] == ["checkpoint", "epoch0", "epoch1"]


def test_the_command_hides_parts(photos: list[str]) -> None:
    found = compare(*photos[:2], "--part", "4,4,8,8", "--part", "5,5,8,8")
    assert found.exit_code == 0, found.output
    assert [row[0] for row in table()] == ["layer", "1", "4"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ((), "no pictures"),
        (("0.png", "1.png"), "2 pictures are too few"),
        (("0.png", "--invariance", "1.png"), "leave out the others"),
        (("--invariance", "no.png"), "no file 'no.png'"),
        (("0.png", "--checkpoints", "x.pth"), "needs --target"),
        (("0.png", "--target", "4:2", "--checkpoints", "x.pth"), "no weights file 'x.pth'"),
        (("0.png", "1.png", "--part", "1,2"), "is no part"),
        (("0.png", "--part", "1,2,3,4", "--checkpoints", "x"), "two questions"),
        (("0.png", "-o", "x.gif"), "cannot write"),
        (("0.png", "--layers", "x"), "no layer 'x'"),
        (("0.png", "--size", "0"), "size is 0"),
    ],
)
@pytest.mark.usefixtures("photos")
def test_bad_input_is_one_line(args: tuple[str, ...], said: str) -> None:
    found = CliRunner().invoke(cli, ["compare", "--net", "guest.py:net", *args])
    assert found.exit_code == 2, found.output
    assert said in found.stderr
    assert found.stderr.splitlines()[-1].startswith("innervision: ")
