"""What every test may rely on: one thread, fixed seeds, the shared data, torchvision beside any torch."""

from __future__ import annotations

import importlib.util
import random
from pathlib import Path

import numpy as np
import pytest
import torch

# torchvision's wheel was built for one torch; beside another its compiled operators cannot be loaded, and its
# import fails for want of two of their schemas. Declaring these is enough for its models.
_torchvision = torch.library.Library("torchvision", "FRAGMENT")
_found = importlib.util.find_spec("torchvision")
if _found and _found.origin:
    try:
        torch.ops.load_library(Path(_found.origin).with_name("_C.so"))
    except OSError:
        for _name in ("nms", "qnms"):
            _torchvision.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

torch.set_num_threads(1)  # pytest-xdist keeps the other cores busy


@pytest.fixture(autouse=True)
def seeds() -> None:
    """Unnamed randomness is the same for a test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The real data and trained weights that lie beside the checkout."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder
