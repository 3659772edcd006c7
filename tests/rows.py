"""Ten examples of two numbers, and a data set of them that notes which were read."""

from __future__ import annotations

import torch
from torch.utils.data import Dataset

X = torch.arange(20.0).view(10, 2)
Y = torch.arange(10)


class Rows(Dataset):
    """Single examples, and a note of which were read."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.read.append(index)
        return X[index], int(Y[index])
