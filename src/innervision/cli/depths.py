"""The parts of the page of `innervision look` about depth: what layers keep, dream of, and do not notice."""

from __future__ import annotations

from typing import TYPE_CHECKING

from innervision.cli.looking import Look, spread
from innervision.cli.pages import Figure, Section, figure, uri
from innervision.cli.seeing import Telling

if TYPE_CHECKING:
    from innervision.images import Size
    from innervision.see.dream import Octaves
    from innervision.see.pictures import Pictures

KEPT, STEPS = 8, 30  # layers inverted at most, and evaluations of each
DREAMT = (1 / 3, 0.6, 0.8)  # of the way through the layers: strokes, patterns, parts of things
OCTAVES, DREAM_STEPS = 3, 8  # of a dream: sizes, and steps at each
MOVES = {  # fewer than see.invariance has, for one page
    "shift": tuple(n / 20 for n in range(-5, 6)),
    "scale": (0.6, 0.8, 1.0, 1.2, 1.4, 1.6, 1.8),
    "rotation": tuple(float(n) for n in range(0, 360, 30)),
}
COMPARED, PICTURES = 16, 32  # layers compared at most, and pictures to compare them by


def kept(look: Look, told: Telling) -> Section:
    """Show the picture as each of some layers keeps it, and the curve."""
    from innervision.errors import InnervisionError
    from innervision.see import invert

    section = Section(
        "What each layer keeps",
        "A picture that the layer answers to as it does to this one, looked for from grey noise: what "
        "the layer does not keep is lost in it (after Mahendran and Vedaldi 2015).",
    )
    found, refused = [], ""
    names = spread(look.shown, KEPT)
    for number, name in enumerate(names):
        image = look.image
        try:
            for frame in invert.inverting(look.fast, look.image, name, steps=STEPS, seed=look.seed):
                image = frame.image
                told.step(number * STEPS + frame.step, len(names) * STEPS, f"what {name} keeps")
        except InnervisionError as error:
            refused = refused or str(error)
            continue
        found.append(invert.judged(look.network, look.image, name, image))
    section.note = f"Not every layer could be inverted: {refused}." if refused else ""
    section.figures += [
        figure(one.image, f"{one.layer}: error {one.error:.2g}, SSIM {one.ssim:.2f}") for one in found
    ]
    if found:
        curve = invert.curve([one.numbers() for one in found])
        section.figures.append(Figure(uri(curve), "Over depth.", plot=True))
    return section


def dreamt_of(look: Look) -> tuple[str, ...]:
    """Return the layers that are asked for more of what they see."""
    names = look.shown
    return tuple(dict.fromkeys(names[min(len(names) - 1, int(share * len(names)))] for share in DREAMT))


def octaves(look: Look) -> Octaves:
    """Return how the page's dreams go."""
    from innervision.see.dream import Octaves

    return Octaves(
        count=OCTAVES, steps=DREAM_STEPS, rate=2.0, jitter=min(32, max(look.image.shape[-2:]) // 7)
    )


def dreams(look: Look, told: Telling) -> Section:
    """Show what a few layers, and the class explained, see in the picture, drawn into it."""
    from dataclasses import replace

    import torch

    from innervision.errors import InnervisionError
    from innervision.see.dream import dream
    from innervision.see.target import Target, named

    wishes = [(Target(name), name) for name in dreamt_of(look)]
    if look.goal.layer is None and look.subject is look.network:
        wishes.append((look.goal, named(look.goal, look.network)))
    how, image, refused = octaves(look), look.image, ""
    section = Section(
        "Dreams",
        "The picture, changed so that a layer sees more of whatever it sees in it already (Deep Dream, after "
        "Mordvintsev, Olah and Tyka 2015). The deeper the layer, the larger and the more definite are the "
        f"forms. A few steps only, {how.count} sizes of {how.steps}: innervision dream has more.",
    )
    for number, (wish, name) in enumerate(wishes):
        for each in (
            how,
            replace(how, count=1, steps=how.count * how.steps),
        ):  # a guest may take one size alone
            try:
                generator = torch.Generator().manual_seed(look.seed)
                for step in dream(look.fast, look.image, [(wish, 1.0)], octaves=each, generator=generator):
                    image = step.image
                    told.step(
                        number * step.steps + step.count, len(wishes) * step.steps, f"a dream of {name}"
                    )
            except InnervisionError as error:
                refused = str(error)
                continue
            section.figures.append(figure(image, name))
            break
    if not section.figures:
        section.note = f"No dream came of it: {refused}."
    return section


def compared(look: Look, told: Telling) -> Section:
    """Show how far layers' answers move with the picture, and how alike the layers are."""
    section = Section(
        "Layers compared",
        "How far each layer's answer moves when the picture is shifted, scaled and turned, as a share of the "
        "answer's length: what moves little is not noticed (Zeiler and Fergus 2013).",
    )
    names = spread(_answering(look), COMPARED)
    _moved(look, names, section, told)
    _alike(look, names, section, told)
    return section


def _answering(look: Look) -> tuple[str, ...]:
    """Return the layers that answer anything to the picture, which those compared have to."""
    import torch

    with torch.no_grad():
        found = look.fast.features(look.image, look.shown)
    return tuple(name for name, answer in found.items() if float(answer.float().norm()) > 0)


def _moved(look: Look, names: tuple[str, ...], section: Section, told: Telling) -> None:
    from innervision.see.invariance import draw, invariance

    found = []
    for number, (kind, amounts) in enumerate(MOVES.items()):
        found.append(invariance(look.fast, look.image, kind, names, amounts=amounts))
        told.step(number + 1, len(MOVES) + 1, f"{kind} of the picture")
    section.figures.append(Figure(uri(draw(found)), "Shifted, scaled and turned.", wide=True))


def _alike(look: Look, names: tuple[str, ...], section: Section, told: Telling) -> None:
    from innervision.errors import InnervisionError
    from innervision.see.compare import cka, heat_map

    pictures = compared_by(look)
    try:
        (*_, found) = cka(look.fast, pictures, names, batch_size=max(4, len(pictures)))
    except (InnervisionError, RuntimeError) as error:  # a guest may take one size alone
        section.note = f"Layers could not be compared with one another: {str(error).splitlines()[0]}."
        return
    seen = found.of - len(found.skipped)
    text = (
        f"How alike layers are, by their answers to {seen} pictures: 1 where they differ by a rotation and "
        "a scale alone, about 0 where they have nothing in common (unbiased linear CKA; Kornblith et al. "
        "2019)."
    )
    section.figures.append(Figure(uri(heat_map(found)), text, plot=True))
    if look.top is None:
        section.note = (
            f"{seen} sample pictures are few: the numbers may be off by a tenth or two. --images FOLDER "
            f"compares by up to {PICTURES} of its own, innervision compare by as many as you like."
        )


def compared_by(look: Look) -> Pictures:
    """Return the pictures that layers are compared by: the first of --images, else the samples."""
    from innervision.samples import SAMPLES
    from innervision.see.pictures import first, open_pictures

    if look.top is not None:
        return first(look.top.pictures, PICTURES)
    return open_pictures([f"sample:{name}" for name in SAMPLES], size=max(look.image.shape[-2:]))


def dream_sizes(look: Look) -> list[Size]:
    """Return the sizes at which a dream goes."""
    h, w = look.image.shape[-2:]
    return octaves(look).sizes((h, w))
