"""The verb: what several models predict on several distributions."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import _context
from .._progress import progress
from ..data import Batch, batches
from ..errors import DataError
from ..records.outcomes import Observed, Outcomes, named_apart
from ..shifts import Attack, Distribution
from .candidates import Candidate, checked
from .metrics import check_finite, labels_of, predictions
from .overlaps import IGNORE, overlaps


def assess(
    subjects: Iterable[Candidate],
    distributions: Iterable[Distribution],
    *,
    path: str | os.PathLike[str] | None = None,
    classes: Sequence[str] = (),
    batch_size: int = 100,
    ignore: int = IGNORE,
    memory: int = 2**30,
) -> Outcomes:
    """Record what each model predicts on each distribution; everything else is worked out from that.

    Each batch is made once and shown to all models, in eval mode; attacks change it against each model. The
    distributions are gone through one after the other, in blocks of batches of at most ``memory`` bytes.
    Models that functions load are kept from then on while all of them together take at most ``memory``
    bytes; the others are loaded again for each block, one at a time.

    Args:
        subjects: the models.
        distributions: what they are tested on; see ``shapleaf.shifts.distributions`` for corruptions, noise
            and attacks.
        path: a file that is written after every distribution, and that a later call goes on from. Models
            and distributions are told by their names alone: after a change of either, use another file.
            Distributions in it that are not asked for stay there.
        classes: names of the classes; by default their numbers.
        batch_size: how many examples at a time are taken from data that are one batch.
        ignore: of segmentations, the label of pixels that do not count.
        memory: bytes of batches, and bytes of loaded models, that are held at a time.

    Raises:
        DataError: two models or distributions have one name; a distribution is empty; models have different
            classes; labels do not fit them; an output is not finite; or the file belongs to other models.
            What was measured before is in the file.

    >>> data = torch.eye(2), torch.tensor([0, 0])
    >>> dense = Candidate(name="dense", model=nn.Identity(), role="reference")
    >>> found = assess([dense], [Distribution(name="clean", data=data, nominal=True)])
    >>> found["clean"].predicted.tolist(), found["clean"].errors
    ([[0, 1]], (Fraction(1, 2),))
    """
    candidates, wanted = checked(subjects), _named(distributions)
    settings = {"ignore": str(ignore), **_context.versions()}
    done, names = _resumed(path, candidates, tuple(classes), settings["ignore"])
    shelf = _Shelf(candidates, memory)

    def outcomes(shown: Iterable[str]) -> Outcomes:
        return Outcomes(
            subjects=tuple(one.subject for one in candidates),
            observed=tuple(done[name] for name in shown if name in done),
            classes=names,
            settings=settings,
        )

    asked = [one.name for one in wanted]
    todo = [one for one in wanted if one.name not in done]
    with progress("assess", len(todo) * len(candidates)) as step:
        for one in todo:
            stream = batches(one.data, batch_size=batch_size)
            reader = _Reader(one.name, len(names), ignore)
            with _context.located(f"distribution {one.name!r}"), _context.rng(0):  # data may be shuffled
                for number, block in enumerate(_blocks(stream, memory)):
                    for k, candidate in enumerate(candidates):
                        with _context.located(f"model {candidate.name!r}"):
                            _run(shelf[k], block, one.attack, reader, k)
                        if number == 0:
                            step(f"{candidate.name}, {one.name}")
            done[one.name] = reader.observed(one)
            names = names or tuple(str(k) for k in range(reader.classes))
            if path is not None:
                outcomes(dict.fromkeys((*asked, *done))).save(path)
    return outcomes(asked)


def _named(distributions: Iterable[Distribution]) -> tuple[Distribution, ...]:
    found = tuple(distributions)
    if not found:
        raise DataError("there are no distributions to measure on: pass at least one Distribution.")
    named_apart("distributions", (one.name for one in found))
    return found


def _resumed(
    path: str | os.PathLike[str] | None,
    candidates: Sequence[Candidate],
    classes: tuple[str, ...],
    ignore: str,
) -> tuple[dict[str, Observed], tuple[str, ...]]:
    """What a file holds already, and the names of the classes."""
    if path is None or not Path(path).exists():
        return {}, classes
    found = Outcomes.load(path)
    mine, theirs = [one.subject for one in candidates], list(found.subjects)
    if mine != theirs:
        other = next((b.name for a, b in zip(mine, theirs, strict=False) if a != b), "")
        raise DataError(
            f"{path} holds {len(theirs)} models, {len(mine)} are to be measured"
            + (f"; the first that differs is {other!r}" if other else "")
            + ". To go on, give the same models in the same order; else choose another file."
        )
    before = found.settings.get("ignore")
    if before != ignore:
        raise DataError(f"{path} was measured with ignore={before}, not {ignore}. Choose another file.")
    if classes and classes != found.classes:
        raise DataError(f"{path} holds other classes: {', '.join(found.classes)}. Choose another file.")
    return {one.distribution: one for one in found.observed}, found.classes


class _Shelf:
    """The models; those that functions load are kept while there is room."""

    def __init__(self, candidates: Sequence[Candidate], memory: int) -> None:
        self.candidates, self.room = candidates, memory
        self.kept: dict[int, nn.Module] = {}

    def __getitem__(self, k: int) -> nn.Module:
        if k in self.kept:
            return self.kept[k]
        model = self.candidates[k].load()
        if model is not self.candidates[k].model:
            size = sum(tensor.nbytes for _, tensor in _context.named_tensors(model))
            if size > self.room:
                return model
            self.room -= size
        self.kept[k] = model
        return model


def _blocks(stream: Iterator[Batch], memory: int) -> Iterator[list[Batch]]:
    """Runs of batches that take about ``memory`` bytes together, at least one batch each."""
    block, size = list[Batch](), 0
    for batch in stream:
        needed = sum(tensor.nbytes for tensor in _context.tensors((batch.inputs, batch.target)))
        if block and size + needed > memory:
            yield block
            block, size = [], 0
        block.append(batch)
        size += needed
    if block:
        yield block


class _Reader:
    """Collects what models predict on one distribution."""

    def __init__(self, name: str, classes: int, ignore: int) -> None:
        self.name, self.classes, self.ignore = name, classes, ignore
        self.labels: list[Tensor] = []
        self.parts: dict[int, list[tuple[Tensor, ...]]] = {}

    def read(self, k: int, output: object, batch: Batch) -> None:
        """Note what model ``k`` predicts."""
        scores = predictions(output, batch).detach()
        self.classes = self.classes or scores.shape[1]
        if scores.shape[1] != self.classes:
            raise DataError(
                f"it predicts {scores.shape[1]} classes, expected {self.classes}, as the data or the models "
                "before it have; models that are measured side by side need the same classes."
            )
        dense = scores.ndim > 2
        labels = labels_of(batch.target, scores, self.ignore if dense else None)
        probabilities = scores.float().softmax(1)
        check_finite(probabilities, batch)
        predicted = scores.argmax(1)
        confidence = probabilities.gather(1, predicted.unsqueeze(1)).squeeze(1)
        if not dense and k == 0:
            self.labels.append(labels.long().cpu())
        found = (
            (overlaps(predicted, labels, self.classes, self.ignore).cpu(),)
            if dense
            else (predicted.to(_index(self.classes)).cpu(), confidence.cpu())
        )
        self.parts.setdefault(k, []).append(found)

    def observed(self, one: Distribution) -> Observed:
        """Everything as a record."""
        columns = [[torch.cat(part) for part in zip(*parts, strict=True)] for parts in self.parts.values()]
        joined = [torch.stack(part) for part in zip(*columns, strict=True)]
        empty = torch.empty(len(columns), 0)
        predicted, confidence = joined if len(joined) == 2 else (empty.to(_index(self.classes)), empty)
        return Observed(
            distribution=one.name,
            nominal=one.nominal,
            family=one.family,
            labels=torch.cat(self.labels) if self.labels else torch.empty(0, dtype=torch.int64),
            predicted=predicted,
            confidence=confidence,
            overlaps=joined[0] if len(joined) == 1 else None,
        )


def _index(classes: int) -> torch.dtype:
    """The smallest whole numbers that hold all classes."""
    return torch.int16 if classes <= 2**15 else torch.int32


def _run(model: nn.Module, block: Sequence[Batch], attack: Attack | None, reader: _Reader, k: int) -> None:
    with _context.inference(model):
        for batch in block:
            inputs, target = _context.on_device((batch.inputs, batch.target), model)
            here = Batch(inputs, target, batch.first)
            if attack is not None:
                here = attack.perturb(model, here)
            with torch.no_grad():
                reader.read(k, _context.forward(model, here.inputs), here)
