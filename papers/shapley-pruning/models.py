"""The three networks of this study, small and plain, with the weights that lie beside the checkout.

Parameter names are those of the files in ``../shared/data``; see the README there for their sources.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CIFAR10 = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


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


@dataclass(frozen=True, slots=True)
class Network:
    """A trained network, what its inputs are normalised by, and what the study prunes.

    Attributes:
        name: the file's name without ``cifar10-``.
        model: in eval mode, single precision.
        mean, std: of its inputs, per channel.
        layers: the groups that are pruned, outermost first.
    """

    name: str
    model: VGG16 | ResNet
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: tuple[str, ...]


def build(name: str) -> Network:
    """An untrained network: ``vgg16``, ``resnet20`` or ``resnet56``.

    VGG16 is pruned in all layers but its first four convolutions and its output, as in the paper; the
    ResNets in the first convolution of every block, the only units that no shortcut reads.
    """
    if name == "vgg16":
        model: VGG16 | ResNet = VGG16()
        layers = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)][4:-1]
        mean, std = CIFAR10
    elif name in ("resnet20", "resnet56"):
        model = ResNet(blocks=(int(name[6:]) - 2) // 6)
        layers = [n for n, _ in model.named_modules() if n.startswith("layer") and n.endswith(".conv1")]
        mean, std = IMAGENET
    else:
        raise ValueError(f"{name!r} is no network of this study; expected vgg16, resnet20 or resnet56.")
    return Network(name, model.eval(), mean, std, tuple(reversed(layers)))


def load(name: str, folder: Path) -> Network:
    """The network with the trained weights of ``folder/cifar10-{name}.safetensors``."""
    network = build(name)
    weights = load_file(folder / f"cifar10-{name}.safetensors")
    network.model.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in weights.items()})
    return network
