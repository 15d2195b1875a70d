"""The pictures that excite each unit most: all units of many layers in one pass over a data set."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from innervision.errors import Diverged, Invalid, RunUnusable
from innervision.files import atomic
from innervision.network import Network
from innervision.see.activations import rectified
from innervision.see.pictures import Pictures, as_pictures, batch
from innervision.see.tokens import maps_of

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class Top:
    """The strongest pictures of each of a layer's units, the strongest first; equals by picture number."""

    values: NDArray[Any]  # (units k) the unit's maximum; -inf where there was no such picture
    pictures: NDArray[np.int32]  # (units k) their numbers; -1 where there was no such picture
    places: NDArray[
        np.int32
    ]  # (units k 2) row and column of the maximum in the layer's map, the first of equals
    extent: tuple[int, int]  # the map's height and width; 1, 1 for a fully connected layer


@dataclass(frozen=True, eq=False)
class TopImages:
    """What a pass over a data set has found so far; the whole answer when done == of."""

    layers: Mapping[str, Top]
    done: int  # pictures looked at, from the first
    of: int
    skipped: tuple[tuple[int, str, str], ...]  # number, name and why: pictures that could not be read
    key: Mapping[str, Any]  # what network looked at what pictures, and how

    def __getitem__(self, layer: str) -> Top:
        return self.layers[layer]

    @property
    def units(self) -> int:
        """How many units there are in all layers."""
        return sum(len(top.values) for top in self.layers.values())

    def save(self, path: Path | str) -> None:
        """Write an index: one .safetensors file, whole or not at all."""
        arrays: dict[str, NDArray[Any]] = {}
        for name, top in self.layers.items():
            arrays |= {f"{name}/values": top.values, f"{name}/pictures": top.pictures}
            arrays |= {f"{name}/places": top.places}
        about = {
            "format": _FORMAT,
            "key": dict(self.key),
            "done": self.done,
            "of": self.of,
            "skipped": self.skipped,
            "layers": {name: top.extent for name, top in self.layers.items()},
        }
        # one entry: safetensors writes several in an order that changes, and equal answers are equal files
        data = safetensors.numpy.save(arrays, {"top_images": json.dumps(about)})
        with atomic(path) as draft:
            draft.write_bytes(data)

    @classmethod
    def load(cls, path: Path | str) -> TopImages:
        """Read an index. Raises RunUnusable for a file that is none, or damaged."""
        try:
            with safetensors.safe_open(str(path), "np") as file:
                about = json.loads(file.metadata()["top_images"])
                if about["format"] != _FORMAT:
                    raise RunUnusable(f"'{path}' was written by another version: make the index anew")
                layers = {
                    name: Top(
                        *(file.get_tensor(f"{name}/{part}") for part in ("values", "pictures", "places")),
                        extent=(extent[0], extent[1]),
                    )
                    for name, extent in about["layers"].items()
                }
        except (OSError, KeyError, TypeError, ValueError, safetensors.SafetensorError) as error:
            raise RunUnusable(f"'{path}' is no index of top images, or damaged: make it anew") from error
        skipped = tuple((int(number), name, why) for number, name, why in about["skipped"])
        return cls(layers, about["done"], about["of"], skipped, about["key"])


def top_images(
    network: Network,
    pictures: Pictures | NDArray[Any] | Tensor,
    layers: Iterable[str] | None = None,
    *,
    k: int = 9,
    batch_size: int | None = None,
    index: Path | str | None = None,
    every: float = 5.0,
) -> Generator[TopImages]:
    """Look at each picture once, and yield after each batch the k strongest so far for every unit.

    pictures: of `pictures.open_pictures`, or an array (n h w 3) or (n h w), uint8. layers: by default the
    ReLUs before the first fully connected layer, or the convolutions where there is no ReLU module; each
    answers (n, units), (n, units, h, w), or tokens on a grid (see `tokens`). batch_size: by default 64
    pictures of up to 64 px, fewer of larger ones. index: a file that is written every `every` seconds and at
    the end; where it is there already the pass goes on from it, and ends with the very file of an unbroken
    pass. A picture that cannot be read is skipped and listed. The caller may stop at any time: the index then
    holds the last batch yielded.

    A unit's strongest pictures are those of its greatest maximum over space (Zeiler & Fergus 2013, section
    4), each picture once. Raises Invalid for an unknown layer or another shape of answer, Diverged where
    a layer answers NaN, RunUnusable for an index of another network, other pictures or other settings.
    """
    if k < 1 or (batch_size is not None and batch_size < 1):
        raise Invalid(f"k is {k} and batch_size {batch_size}; they must be at least 1")
    source = as_pictures(pictures)
    if not len(source):
        raise Invalid(f"{source.name} holds no pictures")
    names = seen_by_default(network) if layers is None else tuple(dict.fromkeys(network.check(layers)))
    if not names:
        raise Invalid(f"{network.name} has neither ReLU nor Conv2d modules: name some of its layers")
    number = batch_size or most_at_once(source.size)
    key = {
        "network": network.name,
        "weights": digest(network),
        "precision": str(network.dtype).removeprefix("torch."),
        "layers": list(names),
        "pictures": source.digest(),
        "size": list(source.size),
        "k": k,
        "batch_size": number,
    }
    start = TopImages({}, 0, len(source), (), key)
    if index is not None and Path(index).exists():
        start = _resumed(Path(index), start)
    return _look(network, source, names, start, number, None if index is None else Path(index), every)


def seen_by_default(network: Network) -> tuple[str, ...]:
    """Return the ReLUs before the first fully connected layer, or else the convolutions."""
    convolutions = (n for n, module in network.module.named_modules() if isinstance(module, nn.Conv2d))
    return rectified(network) or tuple(convolutions)


def most_at_once(size: tuple[int, int]) -> int:
    """Return how many pictures of a size to look at together: 64 of up to 64 px, 5 of 224 px.

    VGG19's answers to one batch then take 300 MB at most in float32.
    """
    return max(1, min(64, 64 * 64 * 64 // (size[0] * size[1])))


def digest(network: Network) -> str:
    """Return a checksum of the weights, of the layers, and of what is done to a picture before them."""
    seen = hashlib.sha256(f"{network.preprocessing}{network.module}".encode())
    for name, value in network.module.state_dict().items():
        if isinstance(value, Tensor):
            raw = value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
            seen.update(f"{name}{tuple(value.shape)}".encode())
            seen.update(raw.data)
    return seen.hexdigest()


def _resumed(path: Path, start: TopImages) -> TopImages:
    found = TopImages.load(path)
    faults = [name for name, value in start.key.items() if found.key.get(name) != value]
    if faults or found.of != start.of:
        what = ", ".join(faults) or "number of pictures"
        raise RunUnusable(
            f"the index '{path}' is of another pass (what differs: {what}): name another file, or remove it"
        )
    return found


def _look(
    network: Network,
    source: Pictures,
    names: Sequence[str],
    found: TopImages,
    number: int,
    index: Path | None,
    every: float,
) -> Generator[TopImages]:
    if found.done == found.of and found.layers:
        yield found
        return
    ranks = {name: _Ranks.of(top, network.device) for name, top in found.layers.items()}
    saved, written = time.monotonic(), found.done
    try:
        while found.done < found.of:
            end = min(found.done + number, found.of)
            image, good, bad = batch(source, range(found.done, end))
            if good:
                _rank(network, image, good, names, found.key["k"], ranks)
            skipped = found.skipped + tuple((n, source.label(n), why) for n, why in bad)
            tops = {name: ranks[name].top() for name in names if name in ranks}
            found = TopImages(tops, end, found.of, skipped, found.key)
            if end == found.of and not tops:
                raise Invalid(f"none of {found.of} pictures could be read: {skipped[0][2]}")
            if index is not None and (end == found.of or time.monotonic() - saved >= every):
                found.save(index)
                saved, written = time.monotonic(), end
            yield found
    finally:  # a caller who stops loses nothing
        if index is not None and found.layers and written != found.done:
            found.save(index)


def _rank(
    network: Network,
    image: Tensor,
    numbers: Sequence[int],
    names: Sequence[str],
    k: int,
    ranks: dict[str, _Ranks],
) -> None:
    """Merge a batch's answers into the layers' ranks."""
    with torch.inference_mode(False), torch.no_grad():  # what is ranked outlives the caller's mode
        answers = network.answers(image.to(network.device), names)
        pictures = torch.tensor(numbers, device=network.device)
        size = (image.shape[-2], image.shape[-1])
        for name in names:
            answer = answers[name]
            if answer.ndim == 2:
                maps = answer[:, :, None, None]
            else:
                maps = maps_of(name, answer, size, "units are ranked in (n, units) and (n, units, h, w) only")
            if len(maps) != len(numbers):
                raise Invalid(f"layer {name!r} answers {len(maps)} times to {len(numbers)} pictures")
            if name not in ranks:
                ranks[name] = _Ranks.empty(maps, k)
            ranks[name].merge(maps, pictures, name)


class _Ranks:
    """The k strongest pictures of a layer's units so far."""

    def __init__(self, values: Tensor, pictures: Tensor, places: Tensor, extent: tuple[int, int]) -> None:
        self.values, self.pictures, self.places, self.extent = values, pictures, places, extent

    @classmethod
    def empty(cls, maps: Tensor, k: int) -> _Ranks:
        units, h, w = maps.shape[1:]
        kind = torch.float64 if maps.dtype == torch.float64 else torch.float32
        values = torch.full((units, k), -math.inf, dtype=kind, device=maps.device)
        nothing = torch.full((units, k), -1, device=maps.device)
        return cls(values, nothing, nothing.clone(), (h, w))

    @classmethod
    def of(cls, top: Top, device: torch.device) -> _Ranks:
        places = torch.from_numpy(top.places).long()
        flat = torch.where(places[..., 0] < 0, -1, places[..., 0] * top.extent[1] + places[..., 1])
        pictures = torch.from_numpy(top.pictures).long()
        values = torch.from_numpy(top.values)
        return cls(values.to(device), pictures.to(device), flat.to(device), top.extent)

    def top(self) -> Top:
        flat = self.places.cpu().numpy()
        rows, columns = np.divmod(flat, self.extent[1])
        places = np.where(flat[..., None] < 0, -1, np.stack([rows, columns], -1)).astype(np.int32)
        pictures = self.pictures.to("cpu", torch.int32, copy=True).numpy()
        return Top(self.values.to("cpu", copy=True).numpy(), pictures, places, self.extent)

    def merge(self, maps: Tensor, pictures: Tensor, name: str) -> None:
        """Merge in a batch's maps (n units h w), whose pictures come after all before and in order."""
        if tuple(maps.shape[2:]) != self.extent:
            raise Invalid(f"layer {name!r} answers maps of {tuple(maps.shape[2:])}, before of {self.extent}")
        best = maps.amax((2, 3)).T.to(self.values.dtype)  # (units n)
        if best.isnan().any():
            at = int(pictures[best.isnan().any(0).nonzero()[0, 0]])
            raise Diverged(f"layer {name!r} answers NaN to picture {at}: try --precision float32")
        # Only what is above the last of the k comes in: an equal has a later number. Soon few units change.
        units = (best > self.values[:, -1:]).any(1).nonzero()[:, 0]
        if not len(units):
            return
        k = self.values.shape[1]
        values = torch.cat([self.values[units], best[units]], 1)
        # stable: those before stand first, in order, so equals stay in the order of their numbers
        values, order = values.sort(dim=1, descending=True, stable=True)
        values, order = values[:, :k], order[:, :k]
        known = torch.cat([self.pictures[units], pictures.expand(len(units), -1)], 1).gather(1, order)
        places = torch.cat([self.places[units], torch.full_like(best[units], -1, dtype=torch.long)], 1)
        places = places.gather(1, order)
        unit, rank = (order >= k).nonzero(as_tuple=True)
        entered = maps[order[unit, rank] - k, units[unit]]  # (entries h w)
        places[unit, rank] = entered.flatten(1).argmax(1)  # the first of equals
        self.values[units], self.pictures[units], self.places[units] = values, known, places
