"""Candidates: models that are to be measured side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import nn

from ..errors import DataError
from ..records.outcomes import Role, Subject


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Candidate:
    """A model, or a function that loads it, and what it is.

    Attributes:
        name: what it is called, unlike any other.
        model: a module, or a function without arguments that returns one, called when it is needed.
        method: how it was pruned; candidates of one method and net form a curve.
        removed: share of the parameters that are gone (or zero), 0 to 1.
        net: which of several independently trained networks it comes from.
        role: ``reference``, ``pruned``, ``separate`` or ``control``; see :class:`shapleaf.records.Subject`.

    >>> Candidate(name="half", model=nn.Identity(), method="WT", removed=0.5).subject.removed
    0.5
    """

    name: str
    model: nn.Module | Callable[[], nn.Module]
    method: str = ""
    removed: float = 0.0
    net: str = "0"
    role: Role = "pruned"

    @property
    def subject(self) -> Subject:
        """What it is, without the model."""
        return Subject(name=self.name, method=self.method, removed=self.removed, net=self.net, role=self.role)

    def load(self) -> nn.Module:
        """The model.

        Raises:
            DataError: what loads it returned something else.
        """
        found = self.model if isinstance(self.model, nn.Module) else self.model()
        if not isinstance(found, nn.Module):
            raise DataError(
                f"model {self.name!r} was loaded as a {type(found).__name__}, expected a torch.nn.Module."
            )
        return found


def checked(candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """The candidates as a tuple, their names unlike each other.

    Raises:
        DataError: there are none, or two have one name.

    >>> len(checked([Candidate(name="a", model=nn.Identity())]))
    1
    """
    found = tuple(candidates)
    names = [one.name for one in found]
    if not found:
        raise DataError("there are no models to measure: pass at least one Candidate.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"two models are named {twice!r}; give each a name of its own.")
    return found
