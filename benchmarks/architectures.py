"""Which architectures are traced, pruned and proven right, told nothing: makes docs/architectures.md.

    python benchmarks/architectures.py                # all of them, resumed where it stopped
    python benchmarks/architectures.py 'timm:vit*'    # some of them

It is ``python -m shapleaf.testing.architectures``, which see, also on a machine whose torchvision was built
for another torch.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch

DOCS = Path(__file__).resolve().parents[1] / "docs"

# Beside another build of torch, torchvision's wheel lacks the schemas of two compiled operators. Models are
# examined in processes that import this file too, so it is declared in all of them.
_library = torch.library.Library("torchvision", "FRAGMENT")
for _name in ("nms", "qnms"):
    if not hasattr(torch.ops.torchvision, _name):
        _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

if __name__ == "__main__":
    from shapleaf.testing.architectures import main

    if not any(argument.startswith("--results") for argument in sys.argv):
        sys.argv += ["--results", str(DOCS)]
    main()
