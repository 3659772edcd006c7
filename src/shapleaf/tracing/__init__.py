"""Which units of a model are coupled: labels that flow through one run of it."""

from .trace import trace

__all__ = ["trace"]
