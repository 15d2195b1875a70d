"""airbench94's network and schedule in plain PyTorch, float32, as its users would run it on a processor.

    python airbench94.py --data cifar-10-batches-bin --seed 0

Restated from the paper (Jordan 2024, arXiv:2404.00498) with torch alone, sharing no code with innervision:
whole batches of 1024, channels first, momentum for all weights, Lookahead, six views at the end. Prints JSON
lines: one an epoch, and at last one with accuracy, accuracy_6_views and seconds (of training).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPOCHS, BATCH, SMOOTHING = 9.9, 1024, 0.2
MOMENTUM, RATE, DECAY, BIASES = 0.85, 11.5, 0.0153, 64.0
MEAN, DEVIATION = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def read(folder: Path, names: list[str]) -> tuple[Tensor, Tensor]:
    """Read CIFAR-10's binary version, normalised."""
    rows = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
    images = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32)).float() / 255
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
    return (images - mean) / deviation, torch.from_numpy(rows[:, 0].astype(np.int64))


class Group(nn.Module):
    """Two convolutions, the first pooled."""

    def __init__(self, into: int, out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(into, out, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = (nn.BatchNorm2d(out, eps=1e-12, momentum=0.4) for _ in range(2))
        for conv in (self.conv1, self.conv2):
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
        for norm in (self.norm1, self.norm2):
            norm.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        return F.gelu(self.norm2(self.conv2(x)))


class Net(nn.Module):
    """The network, its first layer set from pictures."""

    def __init__(self, images: Tensor) -> None:
        super().__init__()
        self.whiten = nn.Conv2d(3, 24, 2)
        self.groups = nn.Sequential(Group(24, 64), Group(64, 256), Group(256, 256))
        self.head = nn.Linear(256, 10, bias=False)
        patches = images[:5000].unfold(2, 2, 1).unfold(3, 2, 1).permute(0, 2, 3, 1, 4, 5).reshape(-1, 12)
        values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
        filters = (vectors / (values + 5e-4).sqrt()).T.flip(0).reshape(12, 3, 2, 2)
        self.whiten.weight.data = torch.cat([filters, -filters])
        self.whiten.weight.requires_grad_(False)
        self.whiten.bias.data.zero_()  # type: ignore[union-attr]

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.groups(F.gelu(self.whiten(x))), 3).flatten(1)
        return self.head(x) / 9


def moved(images: Tensor, shift: int = 2) -> Tensor:
    """Shift each picture by up to so many pixels, the edge reflected."""
    padded = F.pad(images, (shift,) * 4, mode="reflect")
    out = torch.empty_like(images)
    places = torch.randint(0, 2 * shift + 1, (len(images), 2))
    for down in range(2 * shift + 1):
        for across in range(2 * shift + 1):
            which = (places[:, 0] == down) & (places[:, 1] == across)
            out[which] = padded[which, :, down : down + 32, across : across + 32]
    return out


@torch.no_grad()
def accuracies(net: Net, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Return the share that is right of the plain pictures, and by six views."""
    net.eval()

    def both(x: Tensor) -> Tensor:
        return (net(x) + net(x.flip(-1))) / 2

    plain, six = [], []
    for x in images.split(500):
        padded = F.pad(x, (1,) * 4, mode="reflect")
        plain.append(net(x))
        six.append(both(x) / 2 + (both(padded[:, :, :32, :32]) + both(padded[:, :, 2:, 2:])) / 4)
    found = [(torch.cat(scores).argmax(1) == labels).float().mean().item() for scores in (plain, six)]
    return found[0], found[1]


def main() -> None:
    """Train, test, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=float, default=EPOCHS)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    images, labels = read(args.data, [f"data_batch_{n}.bin" for n in range(1, 6)])
    test = read(args.data, ["test_batch.bin"])
    begin = time.perf_counter()
    net = Net(images)
    gain = 1024 * (1 + 1 / (1 - MOMENTUM))
    rate, decay = RATE / gain, DECAY * BATCH / gain
    norms = [p for n, p in net.named_parameters() if "norm" in n and p.requires_grad]
    others = [p for n, p in net.named_parameters() if "norm" not in n and p.requires_grad]
    parts = [
        {"params": norms, "lr": rate * BIASES, "weight_decay": decay / (rate * BIASES)},
        {"params": others, "lr": rate, "weight_decay": decay / rate},
    ]
    optimiser = torch.optim.SGD(parts, momentum=MOMENTUM, nesterov=True)
    length = len(images) // BATCH
    steps = int(np.ceil(args.epochs * length))
    factors = np.interp(np.arange(steps + 1), [0, int(0.23 * steps), steps], [0.2, 1, 0.07])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: factors[step])
    slow = {n: v.clone() for n, v in net.state_dict().items() if v.is_floating_point()}
    coins = torch.rand(len(images)) < 0.5
    done, epoch = 0, 0
    while done < steps:
        net.train()
        net.whiten.bias.requires_grad_(epoch < 3)  # type: ignore[union-attr]
        mirrored = coins if epoch % 2 == 0 else ~coins
        for which in torch.randperm(len(images))[: length * BATCH].split(BATCH):
            x = moved(images[which])
            x = torch.where(mirrored[which].view(-1, 1, 1, 1), x.flip(-1), x)
            loss = F.cross_entropy(net(x), labels[which], label_smoothing=SMOOTHING, reduction="sum")
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
            last = done == steps
            if done % 5 == 0 or last:
                stays = 1.0 if last else 0.95**5 * (done / steps) ** 3
                with torch.no_grad():
                    for name, value in net.state_dict().items():
                        if name in slow:
                            slow[name].lerp_(value, 1 - stays)
                            value.copy_(slow[name])
            if last:
                break
        epoch += 1
        told = {"epoch": epoch, "loss": loss.item() / BATCH, "seconds": time.perf_counter() - begin}
        print(json.dumps(told), flush=True)
    seconds = time.perf_counter() - begin
    plain, six = accuracies(net, *test)
    told = {"accuracy": plain, "accuracy_6_views": six, "seconds": seconds, "seed": args.seed}
    print(json.dumps({**told, "pictures": steps * BATCH / seconds, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
