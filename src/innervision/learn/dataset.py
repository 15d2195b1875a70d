"""A data set in memory: pictures, labels and class names; relabelled, or divided in two."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from innervision import store
from innervision.errors import Invalid
from innervision.files import atomic
from innervision.memory import available

_AT_ONCE = 1000  # pictures copied at a time


@dataclass(frozen=True, eq=False)
class DataSet:
    """Pictures and their labels, in memory or mapped from a file, in the order they were read."""

    images: Tensor  # UInt8[Tensor, "n c h w"], sRGB
    labels: Tensor  # Int64[Tensor, "n"]: places in `classes`
    classes: tuple[str, ...]
    name: str = "data"
    sha256: str = ""  # of pixels, labels and class names: the same data in another archive has the same
    notes: tuple[str, ...] = ()  # what its reader should know: files skipped, grey pictures, an altered copy
    skipped: tuple[tuple[str, str], ...] = ()  # file and reason, where `bad` was "skip"

    def __post_init__(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != torch.uint8:
            raise Invalid(
                "pictures are uint8 of shape (n, c, h, w), "
                f"not {self.images.dtype} {tuple(self.images.shape)}"
            )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise Invalid(
                f"{len(self.images)} pictures need as many labels, int64, "
                f"not {self.labels.dtype} {tuple(self.labels.shape)}"
            )
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise Invalid(
                f"labels must be 0 to {len(self.classes) - 1}: there are {len(self.classes)} classes"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        return self.images.shape[1]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every picture."""
        return self.images.shape[2], self.images.shape[3]

    def counts(self) -> dict[str, int]:
        """Return how many pictures each class has, in the order of the classes."""
        each = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        return dict(zip(self.classes, each, strict=True))

    def subset(self, indices: Tensor | Sequence[int]) -> DataSet:
        """Return the pictures of these numbers, in this order: in memory, or mapped where it is too small."""
        which = torch.as_tensor(indices, dtype=torch.int64, device=self.labels.device)
        seen = hashlib.sha256(f"{self.sha256} subset ".encode())
        seen.update(which.cpu().numpy().tobytes())
        digest = seen.hexdigest()
        chosen = _chosen(self.images, which, digest, again=bool(self.sha256))
        return replace(self, images=chosen, labels=self.labels[which], sha256=digest)


def _chosen(images: Tensor, which: Tensor, digest: str, *, again: bool) -> Tensor:
    """Return some pictures; where they would take more than half of the memory, mapped from a file.

    The file lies beside the decoded ones, and serves again if the digest tells these pictures from others.
    """
    each = images[:1].numel()
    room = available(images.device)
    if images.device.type != "cpu" or room is None or len(which) * each <= room // 2:
        return images[which.to(images.device)]
    path = store.home() / "decoded" / f"part-{digest[:16]}.u8"
    if not again or not path.is_file() or path.stat().st_size != len(which) * each:
        with atomic(path) as draft, draft.open("wb") as file:
            for part in which.split(_AT_ONCE):
                file.write(images[part].numpy().data)
    mapped = np.memmap(path, np.uint8, "c", shape=(len(which), *images.shape[1:]))
    return torch.from_numpy(mapped)


def relabel(data: DataSet, classes: Sequence[str]) -> DataSet:
    """Return the data with its labels as places in these classes, matched by name.

    The data may lack some of the classes. Raises Invalid where it has one that is not among them.
    """
    wanted = tuple(classes)
    if wanted == data.classes:
        return data
    place = {name: number for number, name in enumerate(wanted)}
    counts = data.counts()
    strange = [name for name in data.classes if name not in place and counts[name]]
    if strange:
        shown = ", ".join(map(repr, strange[:5])) + (", …" if len(strange) > 5 else "")
        have = f"{data.name} has {len(data.classes)} classes where {len(wanted)} are expected"
        names = ", ".join(wanted[:12]) + (", …" if len(wanted) > 12 else "")
        raise Invalid(f"{have}; {shown} {'is' if len(strange) == 1 else 'are'} not among {names}")
    to = torch.tensor([place.get(name, 0) for name in data.classes], device=data.labels.device)
    digest = hashlib.sha256(f"{data.sha256} {json.dumps(wanted)}".encode()).hexdigest()
    return replace(data, labels=to[data.labels], classes=wanted, sha256=digest)


def hold_out(data: DataSet, share: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return the numbers of the pictures kept and of those held out, each ascending; as `split` chooses."""
    if not 0 < share < 1:
        raise Invalid(f"share is {share}; it must be between 0 and 1, such as 0.1 for a tenth")
    labels = data.labels.cpu()
    generator = torch.Generator().manual_seed(seed)
    held: list[Tensor] = []
    for number in range(len(data.classes)):
        own = (labels == number).nonzero().flatten()
        if not len(own):
            continue
        if len(own) < 2:
            raise Invalid(
                f"class {data.classes[number]!r} has one picture, which cannot be both learned from and held "
                "out: add some, or take the class out"
            )
        count = min(max(1, round(len(own) * share)), len(own) - 1)
        held.append(own[torch.randperm(len(own), generator=generator)[:count]])
    out = torch.cat(held).sort().values
    kept = torch.ones(len(labels), dtype=torch.bool)
    kept[out] = False
    return kept.nonzero().flatten(), out


def split(data: DataSet, share: float, seed: int) -> tuple[DataSet, DataSet]:
    """Divide data into a part to learn from and a part held out, for choosing and stopping.

    share: of each class that is held out, so that both parts have the classes in one proportion; at least
    one picture a class, and never the last. The same seed holds out the same pictures. Raises Invalid for a
    class of a single picture.
    """
    kept, held = hold_out(data, share, seed)
    return data.subset(kept), data.subset(held)
