"""Backward: the model's own forward, call by call, with a backward of another kind.

Gradient times activation becomes an attribution once the slopes of some functions are replaced by others
(Ancona et al. 2018). The forward is the model's own, and so is what it returns: a call is recognised by what
its function does, and a subclass of :class:`Backward` says how its gradient is to be taken.
"""

from .affine import Affine, affine
from .backward import Backward
from .carrying import averaged, carried, scaled, sloped, stabilised, standardised
from .kinds import KINDS, WEIGHTED
from .rescaling import Remembered, Rescaled

__all__ = [
    "KINDS",
    "WEIGHTED",
    "Affine",
    "Backward",
    "Remembered",
    "Rescaled",
    "affine",
    "averaged",
    "carried",
    "scaled",
    "sloped",
    "stabilised",
    "standardised",
]
