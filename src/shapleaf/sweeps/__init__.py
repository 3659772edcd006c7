"""Sweeps: many trials by any number of worker processes, stopped, resumed and extended at will."""

from .running import sweep
from .study import Study

__all__ = ["Study", "sweep"]
