from __future__ import annotations

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from innervision import sheets
from innervision.errors import Invalid

RED, LIME, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def plain(colour: tuple[int, int, int], height: int, width: int) -> torch.Tensor:
    return (torch.tensor(colour) / 255).view(1, 3, 1, 1).expand(1, 3, height, width)


def boxes(page: Image.Image, *colours: tuple[int, int, int]) -> list[tuple[int, int, int, int]]:
    """Left, top, width and height of what has exactly each colour, and check that it is a full rectangle."""
    pixels, found = np.asarray(page), []
    for colour in colours:
        rows, columns = np.nonzero((pixels == colour).all(-1))
        box = columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1
        assert box[2] * box[3] == len(rows)
        found.append(tuple(int(v) for v in box))
    return found


def ink(page: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(page).astype(int) - np.asarray(page)[0, 0]).max(-1) > 40


def test_a_row_by_hand():
    images = [plain(RED, 50, 100), Image.new("RGB", (30, 60), LIME), plain(BLUE, 7, 7)]
    page = sheets.sheet(images, tile=100, gap=10)
    # margin 20, cells 100 wide and 10 apart; the aspects stay, the feet stand on one line
    assert boxes(page, RED, LIME, BLUE) == [(20, 70, 100, 50), (155, 20, 50, 100), (240, 20, 100, 100)]
    assert page.size == (20 + 3 * 100 + 2 * 10 + 20, 20 + 100 + 20)
    assert page.getpixel((0, 0)) == sheets.PAPER


def test_rows_are_as_high_as_their_pictures():
    images = [plain(RED, 20, 40), plain(LIME, 10, 40), plain(BLUE, 40, 40)]
    page = sheets.sheet(images, tile=40, gap=5, columns=2)
    assert boxes(page, RED, LIME, BLUE) == [(10, 10, 40, 20), (55, 20, 40, 10), (10, 35, 40, 40)]
    assert page.size == (105, 85)
    assert sheets.sheet(images, tile=40, gap=5, columns=9).size == sheets.sheet(images, tile=40, gap=5).size


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (4, 4), (6, 3), (24, 6), (25, 7)])
def test_the_sheet_comes_near_to_three_by_two(count: int, columns: int):
    page = sheets.sheet([plain(RED, 4, 4)] * count, tile=20, gap=0)
    assert page.size == (columns * 20, -(-count // columns) * 20)


def test_labels_stand_below_their_own_picture():
    images = [plain(RED, 40, 60), plain(BLUE, 40, 60)]
    bare = sheets.sheet(images, tile=60)
    page = sheets.sheet(images, labels=["one", ""], tile=60)
    assert page.width == bare.width and page.height > bare.height
    assert not (ink(page)[: bare.height - 16] ^ ink(bare)[: bare.height - 16]).any()
    below = np.nonzero(ink(page)[56:])[1]  # margin 16, picture 40
    assert below.min() >= 16 and below.max() < 16 + 60
    assert (below.min() + below.max()) / 2 == pytest.approx(16 + 30, abs=2)
    two = sheets.sheet(images, labels=["one\ntwo"], tile=60)
    assert two.height > page.height


def test_long_labels_end_in_dots_and_stay_within_their_picture():
    for text in ("a caption that is far too long for it", "légende × trop longue → pour cela", "W" * 500):
        page = sheets.sheet([plain(RED, 40, 60)] * 3, labels=["", text], tile=60)
        below = np.nonzero(ink(page)[56:])[1]
        assert below.min() >= 84 and below.max() < 84 + 60


def drawn(letter: str) -> bytes:
    """The letter in the font of sheets."""
    page = Image.new("L", (40, 40))
    ImageDraw.Draw(page).text((4, 4), letter, 255, sheets.font(20))
    return page.tobytes()


def test_no_letter_is_a_box():
    # a font draws one and the same box for every letter it lacks; this one lacks Chinese
    missing = drawn("\u4e2d")
    assert missing == drawn("\u6587")
    assert all(drawn(letter) != missing for letter in "aé×→½–…zAZ09[]_")


def test_title_and_paper():
    page = sheets.sheet([plain(RED, 50, 100)], title="A title", tile=100, background="white")
    (box,) = boxes(page, RED)
    assert page.getpixel((0, 0)) == (255, 255, 255)
    above = np.nonzero(ink(page)[: box[1]])
    assert (
        above[0].min() >= 16 and above[1].min() >= 16 and np.asarray(page)[above].min() < 60
    )  # dark on light
    dark = sheets.sheet([plain(RED, 50, 100)], title="A title", tile=100)
    assert np.asarray(dark)[: box[1]].max() > 200


def test_small_pictures_keep_their_squares_and_clear_ones_lie_on_the_paper():
    checks = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).expand(1, 3, 2, 2)
    page = np.asarray(sheets.sheet([checks], tile=40, gap=4))[8:-8, 8:-8]
    assert np.array_equal(page[..., 0], np.kron([[0, 255], [255, 0]], np.ones((20, 20))))
    smooth = np.asarray(sheets.sheet([checks], tile=40, gap=4, smooth=True))[8:-8, 8:-8]
    lanczos = Image.fromarray(np.uint8([[0, 255], [255, 0]])).resize((40, 40), Image.Resampling.LANCZOS)
    assert np.array_equal(smooth[..., 0], lanczos)
    clear = np.asarray(sheets.sheet([Image.new("RGBA", (9, 9), (255, 0, 0, 0))], tile=9))
    assert (clear == sheets.PAPER).all()


@pytest.mark.usefixtures("unshaped")
def test_what_a_sheet_cannot_show_is_said():
    with pytest.raises(Invalid, match="at least one image"):
        sheets.sheet([])
    with pytest.raises(Invalid, match="2 labels for 1 images"):
        sheets.sheet([plain(RED, 4, 4)], labels=["a", "b"])
    for columns, tile, gap in ((0, 9, 0), (1, 0, 0), (1, 9, -1)):
        with pytest.raises(Invalid, match=r"they must be at least 1, 1 and 0"):
            sheets.sheet([plain(RED, 4, 4)], columns=columns, tile=tile, gap=gap)
    with pytest.raises(Invalid, match=r"\(1, 3, height, width\), not \(3, 4, 4\)"):
        sheets.sheet([torch.zeros(3, 4, 4)])


def colours(
    values: list[float], *, centred: bool = False, low: float | None = None, high: float | None = None
) -> list[list[int]]:
    return np.asarray(sheets.heat(torch.tensor([values]), centred=centred, low=low, high=high))[0].tolist()


def test_heat_is_matplotlibs_magma():
    # the table's published ends and middle (van der Walt and Smith)
    dark, middle, pale = [0, 0, 3], [183, 55, 121], [251, 252, 191]
    assert colours([0.0, 1.0, 2.0]) == [dark, pytest.approx(middle, abs=2), pale]
    assert colours([-5.0, 0.0, 1.0, 9.0], low=0, high=1) == [dark, dark, pale, pale]
    lightness = np.asarray(sheets.heat(torch.arange(256.0)[None]).convert("L"))[0].astype(int)
    assert (np.diff(lightness) >= -1).all() and lightness[-1] - lightness[0] > 230


def test_centred_heat_is_white_at_zero_red_above_and_blue_below():
    low, zero, high = colours([-1.0, 0.0, 4.0], centred=True)
    assert min(zero) > 240 and high[0] > 2 * high[2] and low[2] > low[0]
    assert min(low) > 150  # a quarter of the way: both sides have one scale
    assert colours([-4.0, 4.0], centred=True) == colours([-9.0, 9.0], centred=True, high=4.0, low=-4.0)


@pytest.mark.usefixtures("unshaped")
def test_heat_of_flat_and_broken_maps():
    nan, inf = float("nan"), float("inf")
    assert colours([3.0, 3.0]) == [[0, 0, 3]] * 2
    assert min(colours([0.0, 0.0], centred=True)[0]) > 240
    assert colours([0.0, nan, 1.0, inf]) == [[0, 0, 3], [128] * 3, [251, 252, 191], [128] * 3]
    assert colours([nan, nan]) == colours([nan, nan], centred=True) == [[128] * 3] * 2
    with pytest.raises(Invalid, match=r"\(height, width\), not \(1, 2, 3\)"):
        sheets.heat(torch.zeros(1, 2, 3))
    with pytest.raises(Invalid, match="low is 1 and high 1"):
        sheets.heat(torch.zeros(2, 3), low=1, high=1)


def test_a_curve_is_drawn_where_its_numbers_are():
    falling = [10.0**power for power in range(6, 0, -1)]
    page = sheets.curve(range(1, 7), {"total": falling, "never": [0.0] * 6})
    assert page.size == (1000, 800) and page.getpixel((0, 0)) == sheets.PAPER
    pale = tuple(round(255 * part) for part in matplotlib.colormaps["Set3"](0)[:3])
    rows, columns = np.nonzero((np.asarray(page)[:600] == pale).all(-1))  # above the legend
    # powers of ten against steps: one straight line, from the upper left to the lower right
    slope, start = np.polyfit(columns, rows, 1)
    assert slope > 0 and np.abs(rows - slope * columns - start).max() < 6
    assert columns.min() < 200 and columns.max() > 900 and rows.min() < 60 and rows.max() > 500
    assert page.tobytes() == sheets.curve(range(1, 7), {"total": falling}).tobytes()  # no line, no name


def test_what_lies_far_off_does_not_press_a_curve_flat():
    near, steps = [8.0, 4.0, 2.0, 1.0, 0.5], range(5)
    page = sheets.curve(steps, {"far": [1e-9, 1.0, 1e12, 1.0, 1.0], "near": near})
    pale = tuple(round(255 * part) for part in matplotlib.colormaps["Set3"](1)[:3])
    rows, _ = np.nonzero((np.asarray(page)[:600] == pale).all(-1))
    assert np.ptp(rows) > 400


def test_words_of_a_label_stand_apart():
    for size in (11, 13, 16, 24):
        font = sheets.font(size)
        for left, right in (("64", "channels"), ("224", "x"), ("3", "classes")):
            apart = font.getlength(f"{left} {right}") - font.getlength(left) - font.getlength(right)
            assert apart >= 0.25 * size, (size, left, right)


def test_a_curve_says_where_something_begins():
    def upright(marks: dict[int, str]) -> list[int]:
        """Columns that are faint on a third of the way down, to the right of the axis."""
        page = np.asarray(sheets.curve([1, 2, 3], {"total": [3, 2, 1]}, marks=marks))[100:550, 250:]
        return (250 + np.flatnonzero((page == sheets.FAINT).all(2).sum(0) > 150)).tolist()

    (*_, last) = found = upright({2: "64x48"})
    assert upright({}) == [] and last - found[0] < 6 and 500 < last < 640, "one line, in the middle"


def test_a_curve_of_nothing_and_one_of_the_wrong_length():
    nothing = sheets.curve([1, 2], {})
    assert nothing.size == sheets.curve([], {}).size == (1000, 800)
    wild = sheets.curve([1, 2], {"zero": [0.0, -1.0], "wild": [float("inf"), float("nan")]})
    assert wild.tobytes() == nothing.tobytes()
    with pytest.raises(Invalid, match="'total' has 1 values for 2 counts"):
        sheets.curve([1, 2], {"total": [1.0]})
