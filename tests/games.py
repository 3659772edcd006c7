"""Games of no closed form that tests of several estimators play."""

import torch

from shapleaf.game.toys import FunctionGame


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(ids=range(5), players=10, name="fc"):
    """Cross-entropy of a random ReLU layer that reads the units; unit 3 is dead."""
    ids = list(ids)
    units = random(64, players).abs()[ids]
    units[:, 3] = 0
    first, bias, second = random(players, 24, seed=1), random(24, seed=3), 0.3 * random(24, 4, seed=2)
    target = torch.arange(64)[ids] % 4
    cross_entropy = torch.nn.CrossEntropyLoss(reduction="none")
    return FunctionGame(
        lambda mask: cross_entropy(((mask * units) @ first + bias).relu() @ second, target),
        players,
        ids,
        name=name,
    )
