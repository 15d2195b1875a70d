"""Make a trained network ready to be shipped: weights in half precision, measured anew, with its model card.

    python ship.py lenet5-mnist RUN RUN … --data DIR
    python ship.py cifar10-fast RUN --data DIR --row "other trainings=…"

The first run is the one that is shipped; the others, by the same recipe with other seeds, are counted in the
mean. What is measured on the test part is measured of the file as it is shipped. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch

from innervision import models, saved
from innervision.learn import data, evaluate, modelcard
from innervision.learn.recipes import RECIPES
from innervision.record.events import read_events

WHAT = {
    "lenet5-mnist": {
        "text": "LeNet-5, trained to read the handwritten digits of MNIST.",
        "data": "MNIST, 60,000 digits to learn from and 10,000 to test (LeCun, Cortes and Burges)",
        "use": "To learn and teach how a convolutional network sees: small enough to look at every unit, and "
        "trained in two minutes. It tells single digits, white on black, in the middle of 28 x 28 pixels.",
        "limits": "It is no reader of numbers in photographs: black on white, several digits, or a digit off "
        "the middle are none of what it was taught, and it gives an answer all the same.",
        "licence": "The weights come with innervision under its licence (MIT). MNIST is under CC BY-SA 3.0; "
        "no picture of it is among them.",
    },
    "cifar10-fast": {
        "text": "A network that learned the ten classes of CIFAR-10 within minutes on a processor.",
        "data": "rebuilt CIFAR-10, 50,000 pictures to learn from and 10,000 to test (Krizhevsky 2009), in "
        "the publisher's order; 59,813 are the original bit for bit, 187 come from JPEG copies of it",
        "use": "To look inside a network that is good and yet small, to begin other trainings from, and to "
        "tell airplane, automobile, bird, cat, deer, dog, frog, horse, ship and truck in small pictures.",
        "limits": "It sees 32 x 32 pixels and knows these ten words only: of any other thing it says the one "
        "that it resembles most. Its pictures were gathered from the web in 2008, with the leanings of "
        "their time; nothing of consequence should hang on its answers.",
        "licence": "The weights come with innervision under its licence (MIT). CIFAR-10 states no licence; "
        "no picture of it is among them.",
    },
}


def main() -> None:
    """Write the folder and say what was measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=WHAT)
    parser.add_argument("runs", nargs="+", type=Path, help="run folders; the first is shipped")
    parser.add_argument("--data", required=True, help="the folder or archive, for its test part")
    parser.add_argument("--output", type=Path, help="[default: in the package]")
    parser.add_argument("--row", action="append", default=[], metavar="NAME=TEXT", help="of the card's table")
    args = parser.parse_args()
    torch.set_grad_enabled(False)
    first, what = args.runs[0], WHAT[args.name]
    trained = saved.open_saved(first)
    card, run = models.read_card(first), json.loads((first / "run.json").read_text())
    trained.name = args.name
    folder = (args.output or Path(models.__file__).parent) / args.name
    facts = {name: card.facts[name] for name in ("recipe", "seed", "epochs", "temperature", "seconds")}
    saved.save(trained, folder, net=card.net, options=card.options, dtype=torch.float16, facts=facts)

    shipped = saved.open_saved(folder)
    test = data.read(args.data, "test", channels=len(card.preprocessing.mean))
    temperature = float(card.facts["temperature"])
    found = {
        views: evaluate.evaluate(
            evaluate.logits(shipped, test, views=views), test.labels, card.classes, temperature=temperature
        )
        for views in {1, RECIPES[card.facts["recipe"]].views}
    }
    seeds = {models.read_card(r).facts["seed"]: models.read_card(r).facts["accuracy"] for r in args.runs}
    seeds[card.facts["seed"]] = found[1].accuracy
    measured = {"accuracy": found[1].accuracy, "ece": found[1].ece, "ece_calibrated": found[1].ece_calibrated}
    more = {f"accuracy_{views}_views": one.accuracy for views, one in found.items() if views > 1}
    facts = {
        "text": what["text"],
        **facts,
        **measured,
        **more,
        "seeds": {str(s): a for s, a in seeds.items()},
    }
    saved.save(shipped, folder, net=card.net, options=card.options, dtype=torch.float16, facts=facts)
    machine = run["machine"]
    rows = {
        "recipe": f"{card.facts['recipe']}, seed {card.facts['seed']}: see `innervision recipes`",
        "epochs": f"{card.facts['epochs']:g}, batches of {card.facts['batch']}",
        "pictures": f"{card.facts['pictures']:,}, and {card.facts['held_out']:,} held out",
        "time": f"{card.facts['seconds']:.0f} s on {machine['processor']}, {machine['threads']} threads, "
        f"{machine['precision']}, torch {run['versions']['torch']}",
        "weights": "half precision in the file; measured as they are shipped",
        **dict(row.split("=", 1) for row in args.row),
    }
    modelcard.write(
        folder,
        found[1],
        data=what["data"],
        use=what["use"],
        limits=what["limits"],
        licence=what["licence"],
        seeds=seeds,
        views={views: one.accuracy for views, one in found.items() if views > 1},
        training=rows,
        events=read_events(first),
    )
    print(json.dumps({"folder": str(folder), **asdict(models.read_card(folder))["facts"]}))


if __name__ == "__main__":
    main()
