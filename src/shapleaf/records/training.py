"""Training: how a network was trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ._base import Record


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Training(Record):
    """What :func:`shapleaf.train` did, epoch by epoch.

    Attributes:
        losses: the mean loss of each epoch, as its batches were seen.
        rates: the learning rate at the end of each epoch.
        seconds: what each epoch took, without what was lost to an interruption.
        batches: a digest of all inputs and targets in their order, the same for networks that saw the same.
        settings: recipe, seed, data.

    >>> print(Training(losses=(2.0, 1.5), rates=(0.1, 0.01), seconds=(3.0, 3.0)))
    Training
    epoch  loss  learning rate  seconds
    ─────  ────  ─────────────  ───────
        1     2            0.1        3
        2   1.5           0.01        3
    """

    losses: tuple[float, ...] = ()
    rates: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    batches: str = ""
    settings: dict[str, str] = field(default_factory=dict)

    def table(self) -> dict[str, Any]:
        start = int(self.settings.get("start", 0))
        return {
            "title": "Training",
            "header": ["epoch", "loss", "learning rate", "seconds"],
            "rows": [
                [start + epoch + 1, *told]
                for epoch, told in enumerate(zip(self.losses, self.rates, self.seconds, strict=True))
            ],
            "footer": ", ".join(f"{key}={value}" for key, value in self.settings.items()),
        }
