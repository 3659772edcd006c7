"""The share of positions at which a unit is active, against loops."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import shapleaf as sl
from zoo import Apply, conv, head, settle

X = torch.randn(5, 2, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def shares(model: nn.Module, name: str, inputs: Tensor = X) -> Tensor:
    scores = sl.attribute(model, sl.trace(model, inputs), [(inputs, None)], sl.APoZ(), aggregate=None)
    return scores.values[name]


def loops(maps: list[Tensor]) -> Tensor:
    """Share above zero of each example and unit over all its positions in all the tensors."""
    rows = []
    for e in range(len(maps[0])):
        row = []
        for u in range(maps[0].shape[1]):
            values = [v for activation in maps for v in activation[e, u].flatten().tolist()]
            row.append(sum(v > 0 for v in values) / len(values))
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


def test_a_convolution_counts_its_positions() -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 5), nn.ReLU(), head(5)))
    torch.testing.assert_close(shares(model, "0"), loops([model[:2](X)]), rtol=0, atol=1e-15)
    # The second is read behind global pooling: one position.
    torch.testing.assert_close(shares(model, "2"), loops([model[:4](X).mean((2, 3))]), rtol=0, atol=1e-15)


def test_zero_is_not_active() -> None:
    model = nn.Sequential(nn.Linear(1, 3), nn.Identity(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].bias.copy_(torch.tensor([0.0, -1.0, 1e-30]))
    assert shares(model, "0", torch.zeros(2, 1)).tolist() == [[0, 0, 1], [0, 0, 1]]


def test_a_residual_stream_is_counted_in_every_distinct_tensor() -> None:
    def run(self: Any, x: Tensor) -> Tensor:
        s = self.stem(x)
        s = F.relu(s + self.b(F.relu(self.a(s)))) - 0.1
        return self.head(self.c(s) + self.d(s))

    model = settle(
        Apply(run, stem=conv(2, 4), a=conv(4, 6), b=conv(6, 4), c=conv(4, 3), d=conv(4, 3), head=head(3))
    )
    s = model.stem(X)
    after = F.relu(s + model.b(F.relu(model.a(s)))) - 0.1
    torch.testing.assert_close(shares(model, "stem"), loops([s, after]), rtol=0, atol=1e-15)


def test_labels_and_gradients_are_not_needed() -> None:
    forwards = []
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), head(4)))
    graph = sl.trace(model, X)
    handle = model.register_forward_hook(lambda *_: forwards.append(torch.is_grad_enabled()))
    scores = sl.attribute(model, graph, [X[:2], X[2:]], sl.APoZ(), aggregate=sl.Mean())
    handle.remove()
    assert forwards == [False] * 3  # the first batch once more, to see that its examples do not mix
    assert scores.samples == 5
    assert scores.values["0"].shape == (4,)


@pytest.mark.parametrize("examples", [1, 5])
def test_means_are_one_minus_the_papers_apoz(examples: int) -> None:
    model = settle(nn.Sequential(conv(2, 4), nn.ReLU(), conv(4, 3), head(3)))
    inputs = X[:examples]
    scores = sl.attribute(model, sl.trace(model, X), [(inputs, None)], sl.APoZ(), aggregate=sl.Mean())
    zeros = (model[:2](inputs) == 0).double().mean((0, 2, 3))
    torch.testing.assert_close(scores.values["0"], 1 - zeros, rtol=0, atol=1e-15)
