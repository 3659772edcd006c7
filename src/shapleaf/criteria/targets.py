"""Targets: what units are needed for, the loss, a logit or the difference of two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from .. import _context
from ..errors import CriterionError, DataError

Class = int | Literal["true"]


@runtime_checkable
class Target(Protocol):
    """What units are needed for, as a cost per example: it rises when one that is needed is removed.

    Attributes:
        labelled: whether the data must have labels.

    >>> isinstance(Loss(), Target), isinstance(Logit(), Target)
    (True, True)
    """

    @property
    def labelled(self) -> bool: ...

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """The cost of each example, ``(examples,)``; ``loss`` is the one that attribute was given."""
        ...


@dataclass(frozen=True)
class Loss:
    """The loss that :func:`shapleaf.attribute` is given, cross-entropy by default: scores are rises of it.

    >>> Loss().cost(torch.zeros(1, 2), torch.tensor([1]), _context.cross_entropy)
    tensor([0.6931])
    """

    @property
    def labelled(self) -> bool:
        """Always: the loss reads them."""
        return True

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """The loss itself."""
        return loss(output, labels)


@dataclass(frozen=True)
class Logit:
    """The score of a class before the softmax: a unit is needed as much as its removal lowers it.

    Further places, as of a segmentation, are averaged over.

    Args:
        of: the number of the class, or ``"true"`` for that of each example's label.

    >>> output = torch.tensor([[3.0, 1.0], [5.0, 2.0]])
    >>> Logit(1).cost(output, None, _context.cross_entropy).tolist()  # what falls is a cost that rises
    [-1.0, -2.0]
    >>> Logit().cost(output, torch.tensor([0, 1]), _context.cross_entropy).tolist()
    [-3.0, -2.0]
    """

    of: Class = "true"

    def __post_init__(self) -> None:
        _settle(self, "of", ("true",))

    @property
    def labelled(self) -> bool:
        """Whether the class is that of the labels."""
        return self.of == "true"

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """The logit with its sign turned.

        Raises:
            CriterionError: the model has no such class, or returns no scores of classes.
            DataError: the labels are no numbers of classes.
        """
        scores = _scores(output)
        return -_mean(scores.gather(1, _index(scores, labels, self.of)))


@dataclass(frozen=True)
class LogitDifference:
    """How far one class is ahead of another: a unit is needed as much as its removal lowers the lead.

    Args:
        of: the number of the class, or ``"true"`` for that of each example's label.
        against: the other's; ``"next"`` is the highest of all but ``of``, whichever that is at the time.

    >>> output = torch.tensor([[3.0, 1.0, 2.0]])
    >>> LogitDifference(0, 1).cost(output, None, _context.cross_entropy).tolist()
    [-2.0]
    >>> LogitDifference().cost(output, torch.tensor([0]), _context.cross_entropy).tolist()
    [-1.0]
    """

    of: Class = "true"
    against: Class | Literal["next"] = "next"

    def __post_init__(self) -> None:
        _settle(self, "of", ("true",))
        _settle(self, "against", ("true", "next"))
        if self.of == self.against:
            raise CriterionError(f"{self} is always zero; name two classes.")

    @property
    def labelled(self) -> bool:
        """Whether one of the classes is that of the labels."""
        return "true" in (self.of, self.against)

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """The difference with its sign turned.

        Raises:
            CriterionError: the model has no such class, or no other, or returns no scores of classes.
            DataError: the labels are no numbers of classes.
        """
        scores = _scores(output)
        index = _index(scores, labels, self.of)
        if self.against != "next":
            other = scores.gather(1, _index(scores, labels, self.against))
        elif scores.shape[1] > 1:
            other = scores.scatter(1, index, -torch.inf).amax(1, keepdim=True)
        else:
            raise CriterionError(f"{self}: the model returns scores of one class only.")
        return _mean(other - scores.gather(1, index))


@dataclass(frozen=True)
class Relative:
    """Another target, each example's divided by its own value: what counts is the share of it that is lost.

    So Pruning by eXplaining (Hatefi et al. 2024) starts from a relevance of one, whatever the logit.

    Args:
        target: the other target.

    >>> output = torch.tensor([[3.0, 1.0], [5.0, 2.0]])
    >>> Relative(Logit(0)).cost(output, None, _context.cross_entropy).tolist()
    [-1.0, -1.0]
    """

    target: Target = field(default_factory=Logit)

    def __post_init__(self) -> None:
        check_target(self)

    @property
    def labelled(self) -> bool:
        """As the other's."""
        return self.target.labelled

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """Minus one, with the gradient of minus the other over its value.

        Raises:
            CriterionError: that is zero for an example.
        """
        cost = self.target.cost(output, labels, loss)
        value = cost.detach()
        if bool((value == 0).any()):
            bad = int((value == 0).nonzero()[0])
            raise CriterionError(
                f"{self}: the target of example {bad} of the batch is zero, so nothing is known relative to "
                f"it; use target={self.target}."
            )
        return -cost / value


@dataclass(frozen=True)
class Restricted:
    """Another target of the model as a classifier of a few classes: scores of all others do not count.

    Args:
        classes: the numbers of the classes, two at least.
        target: the other target; a loss is given the scores alone.
        excluded: the score of all other classes. Minus infinity leaves them out; 0 is what Hatefi et al.
            (2024) give them, which wins where all scores of the classes are negative.

    Raises:
        CriterionError: there are fewer than two classes, or one twice; the target names another one; or
            ``excluded`` is neither minus infinity nor finite.

    >>> output = torch.tensor([[3.0, 1.0, 9.0, 2.5]])
    >>> few = Restricted((0, 1, 3), LogitDifference())
    >>> few.scores(output)
    tensor([[3.0000, 1.0000,   -inf, 2.5000]])
    >>> few.cost(output, torch.tensor([0]), _context.cross_entropy)
    tensor([-0.5000])
    """

    classes: Sequence[int]
    target: Target = field(default_factory=Logit)
    excluded: float = -torch.inf

    def __post_init__(self) -> None:
        check_target(self)
        classes = tuple(map(_context.number, self.classes))
        object.__setattr__(self, "classes", classes)
        if len(set(classes)) < max(2, len(classes)) or not all(map(_is_class, classes)):
            raise CriterionError(f"{self}: classes are at least two numbers of classes, each once.")
        if not self.excluded < torch.inf:
            raise CriterionError(f"{self}: excluded is minus infinity or a finite score.")
        for one in parts(self.target):
            for name in ("of", "against"):
                if _is_class(k := getattr(one, name, None)) and k not in classes:
                    raise CriterionError(f"{self}: class {k} of its target is none of its classes.")

    @property
    def labelled(self) -> bool:
        """As the other's."""
        return self.target.labelled

    def scores(self, output: Any) -> Tensor:
        """What the model returned, ``(examples, classes, ...)``, with other classes' scores replaced.

        Raises:
            CriterionError: the model has no such class, or returns no scores of classes.
        """
        scores = _scores(output)
        _in_range(max(self.classes), scores)
        inside = torch.zeros(scores.shape[1], dtype=torch.bool, device=scores.device)
        inside[list(self.classes)] = True
        return scores.where(inside.view(-1, *[1] * (scores.ndim - 2)), self.excluded)

    def check(self, labels: Any) -> None:
        """Refuse labels that are none of the classes.

        Raises:
            DataError: one is not, or they are no numbers of classes.

        >>> Restricted((0, 3)).check(torch.tensor([3, 0, 0]))
        """
        if not isinstance(labels, Tensor) or labels.is_floating_point():
            raise DataError(
                f"{self} needs labels that are numbers of classes, received {_context.described(labels)}."
            )
        other = labels[~torch.isin(labels, torch.tensor(self.classes, device=labels.device))]
        if other.numel():
            raise DataError(
                f"label {int(other[0])} is none of the classes {', '.join(map(str, self.classes))}; leave "
                "such examples out, as shapleaf.per_class(data, None, classes=...) does."
            )

    def cost(self, output: Any, labels: Any, loss: _context.Loss) -> Tensor:
        """The other's cost, of the restricted scores.

        Raises:
            CriterionError: the model has no such class, or returns no scores of classes.
            DataError: a label is none of the classes.
        """
        scores = self.scores(output)
        if self.labelled:
            self.check(labels)
        return self.target.cost(scores, labels, loss)


def check_target(of: Any) -> None:
    """Refuse what is no target.

    Args:
        of: what has a ``target``: a criterion, or another target.

    Raises:
        CriterionError: it has something else; the message says what to write.

    >>> check_target(Relative(Logit(0)))
    """
    found = of.target
    if isinstance(found, Target) and not isinstance(found, type):
        return
    if isinstance(found, type) and isinstance(found, Target):
        fix = f"{found.__name__}(...)"
    elif _is_class(found) or (isinstance(found, str) and found == "true"):
        fix = f"Logit({found!r})"
    else:
        fix = "Logit() or Loss()"
    raise CriterionError(f"{type(of).__name__}(target=...) is a target such as {fix}, received {found!r}.")


def parts(target: Target) -> Iterator[Target]:
    """A target and what it is made of, outermost first.

    >>> [type(one).__name__ for one in parts(Relative(Restricted((0, 1))))]
    ['Relative', 'Restricted', 'Logit']
    """
    yield target
    inner = getattr(target, "target", None)
    if inner is not None:
        yield from parts(inner)


def compared(target: Target, where: str, name: str = "target") -> None:
    """Refuse a share where it is compared with its value elsewhere: it has none.

    Raises:
        CriterionError: a part of the target is :class:`Relative`.

    >>> compared(Logit(0), "without units")
    """
    shares = [one for one in parts(target) if isinstance(one, Relative)]
    if shares:
        plain = repr(target).replace(repr(shares[0]), repr(shares[0].target))
        raise CriterionError(
            f"{target} has a gradient where the network is, but no value {where}; use {name}={plain}."
        )


def measured(loss: _context.Loss | Target) -> tuple[Target, _context.Loss]:
    """What is measured where units are removed, and the loss: cross-entropy, if that is not it.

    Raises:
        CriterionError: a target that has no value there.

    >>> measured(Logit(0))[0], measured(_context.cross_entropy)[0]
    (Logit(of=0), Loss())
    """
    if not isinstance(loss, Target):
        return Loss(), loss
    compared(loss, "where units are removed", "loss")
    return loss, _context.cross_entropy


def _settle(target: Target, name: str, words: tuple[str, ...]) -> None:
    """A class becomes an ``int`` or is one of the words; refused otherwise."""
    given = _context.number(getattr(target, name))
    object.__setattr__(target, name, given)
    if (isinstance(given, str) and given in words) or _is_class(given):
        return
    expected = " or ".join(f'"{word}"' for word in words)
    raise CriterionError(
        f"{type(target).__name__}({name}=...) is the number of a class or {expected}, received {given!r}."
    )


def _is_class(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _scores(output: Any) -> Tensor:
    """What the model returned, (examples, classes, places …), precise enough to differ in."""
    scores = _context.logits(output)
    if scores.ndim < 2:
        raise CriterionError(
            f"a logit needs scores of shape (examples, classes), but the model returned {(*scores.shape,)}; "
            "use target=Loss() with a loss=f(output, target) that fits it."
        )
    return scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores


def _index(scores: Tensor, labels: Any, of: Class | str) -> Tensor:
    """The class of every example and place, (examples, 1, places …)."""
    classes, shape = scores.shape[1], (len(scores), *scores.shape[2:])
    if isinstance(of, int):
        _in_range(of, scores)
        return torch.full(shape, of, device=scores.device).unsqueeze(1)
    if not isinstance(labels, Tensor) or labels.is_floating_point() or labels.shape != shape:
        got = _context.described(labels)
        raise DataError(
            f"the true class needs labels that are whole numbers of shape {shape}, received {got}; "
            "name a class instead, such as Logit(0)."
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise DataError(
            f"labels run from {int(labels.min())} to {int(labels.max())}, "
            f"but the model has {classes} classes (0 to {classes - 1})."
        )
    return labels.long().unsqueeze(1)


def _in_range(of: int, scores: Tensor) -> None:
    classes = scores.shape[1]
    if of >= classes:
        raise CriterionError(
            f"class {of} is out of range: the model has {classes} classes (0 to {classes - 1})."
        )


def _mean(scores: Tensor) -> Tensor:
    return scores.flatten(1).mean(1)
