"""The networks of this study, small and plain, with their trained weights.

Those for CIFAR-10 lie beside the checkout, in ``../shared/data``, whose parameter names they have; see the
README there for their sources. The one for MNIST is trained by ``train.py``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
MNIST = (0.1307,), (0.3081,)

CACHE = Path.home() / ".cache" / "shapleaf"
RECIPE = {"images": 60_000, "epochs": 2, "batch": 100, "rate": 0.05, "momentum": 0.9, "seed": 0}
"""How ``train.py`` trains the network for MNIST; part of its weights' file name."""


class Block(nn.Module):
    """Two convolutions around a shortcut without parameters (He et al. 2016, option A)."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, (width - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.missing:
            x = x[:, :, :: self.stride, :: self.stride]
            x = functional.pad(x, (0, 0, 0, 0, self.missing, self.missing))
        return functional.relu(out + x)


class ResNet(nn.Module):
    """The CIFAR ResNet of ``6 * blocks + 2`` layers (He et al. 2016, section 4.2)."""

    def __init__(self, blocks: int, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks, 1)
        self.layer2 = self._stage(16, 32, blocks, 2)
        self.layer3 = self._stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, classes)

    @staticmethod
    def _stage(inputs: int, width: int, blocks: int, stride: int) -> nn.Sequential:
        first = Block(inputs, width, stride)
        return nn.Sequential(first, *(Block(width, width, 1) for _ in range(blocks - 1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))

    def stem(self, x: Tensor) -> Tensor:
        """What the study leaves as it is."""
        return functional.relu(self.bn1(self.conv1(x)))

    def head(self, x: Tensor) -> Tensor:
        return self.linear(self.layer3(self.layer2(self.layer1(x))).mean((2, 3)))


class VGG16(nn.Module):
    """VGG16 with batch normalisation and a classifier for 32 x 32 images (Ancona et al. 2020, section 4)."""

    WIDTHS = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 3
        for width in self.WIDTHS:
            if width:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        dense = [nn.Dropout(), nn.Linear(512, 512), nn.ReLU()]
        self.classifier = nn.Sequential(
            *dense, nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))

    def stem(self, x: Tensor) -> Tensor:
        """What the study leaves as it is: the first four convolutions, as in the paper."""
        return self.features[:14](x)

    def head(self, x: Tensor) -> Tensor:
        return self.classifier(self.features[14:](x).flatten(1))


class LeNet(nn.Module):
    """The network that the authors train on Fashion-MNIST, without batch normalisation."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 5)
        self.conv2 = nn.Conv2d(32, 64, 3, padding=2)
        self.fc1 = nn.Linear(64 * 7 * 7, 4096)
        self.fc2 = nn.Linear(4096, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stem(x))

    def stem(self, x: Tensor) -> Tensor:
        """What the study leaves as it is: nothing."""
        return x

    def head(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))


@dataclass(frozen=True, slots=True)
class Network:
    """A network, the images it is for, what these are normalised by, and what the study prunes.

    Attributes:
        name: ``vgg16``, ``resnet20``, ``resnet56`` or ``mnist``.
        model: in eval mode, single precision.
        source: the images, as ``load_data`` calls them: ``cifar10`` or ``mnist``.
        mean, std: of its inputs, per channel.
        layers: the groups that are pruned, outermost first.
    """

    name: str
    model: VGG16 | ResNet | LeNet
    source: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[str, ...]


def build(name: str) -> Network:
    """An untrained network: ``vgg16``, ``resnet20``, ``resnet56`` or ``mnist``.

    VGG16 is pruned in all layers but its first four convolutions and its output, as in the paper's study of
    little data; the ResNets in the first convolution of every block, the only units that no shortcut reads;
    the network for MNIST in all layers but its output.
    """
    model: VGG16 | ResNet | LeNet
    source, mean, std = "cifar10", *CIFAR10
    if name == "vgg16":
        model = VGG16()
        layers = weighted(model)[4:-1]
    elif name in ("resnet20", "resnet56"):
        model = ResNet(blocks=(int(name[6:]) - 2) // 6)
        layers = [n for n, _ in model.named_modules() if n.startswith("layer") and n.endswith(".conv1")]
        mean, std = IMAGENET
    elif name == "mnist":
        model = LeNet()
        layers = weighted(model)[:-1]
        source, mean, std = "mnist", *MNIST
    else:
        raise ValueError(
            f"{name!r} is no network of this study; expected vgg16, resnet20, resnet56 or mnist."
        )
    return Network(name, model.eval(), source, mean, std, tuple(reversed(layers)))


def weighted(model: nn.Module) -> list[str]:
    """The names of all convolutions and dense layers, the output last."""
    return [name for name, part in model.named_modules() if isinstance(part, nn.Conv2d | nn.Linear)]


def load(name: str, folder: Path) -> Network:
    """The network with its trained weights.

    Those for CIFAR-10 are ``folder/cifar10-{name}.safetensors``; those for MNIST are in the cache.
    """
    network = build(name)
    path = folder / f"cifar10-{name}.safetensors" if network.source == "cifar10" else cached()
    if not path.exists():
        made = " `python papers/shapley-pruning/train.py` makes it." if path.parent == CACHE else ""
        raise SystemExit(f"the weights {path} do not exist.{made}")
    weights = load_file(path)
    network.model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return network


def cached() -> Path:
    """Where the weights for MNIST are kept once trained."""
    digest = hashlib.sha256(json.dumps(RECIPE, sort_keys=True).encode()).hexdigest()[:12]
    return CACHE / f"mnist-{digest}.safetensors"
