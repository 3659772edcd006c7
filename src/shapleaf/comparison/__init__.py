"""Criteria side by side: whom they agree with, what they are good for, and what they cost."""

from .compare import compare
from .settings import Comparing

__all__ = ["Comparing", "compare"]
