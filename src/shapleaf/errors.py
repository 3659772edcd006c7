"""The errors shapleaf raises: one root, one class per stage of the flow."""


class ShapleafError(ValueError):
    """Root of every error that a user's input can cause.

    >>> issubclass(TraceError, ShapleafError)
    True
    """


class TraceError(ShapleafError):
    """The model could not be traced, or has nothing that can be removed."""


class CriterionError(ShapleafError):
    """A criterion, estimator or loss was misused or returned unusable scores."""


class BudgetError(ShapleafError):
    """A budget cannot be met; the message names the nearest one that can."""


class PlanError(ShapleafError):
    """A plan or receipt cannot be applied; the model is as it was before."""


class StaleGraphError(PlanError):
    """A record belongs to another model than the one it is used on."""


class DataError(ShapleafError):
    """Calibration or test data, or a file, is not what it must be."""


class MissingExtraError(ShapleafError, ImportError):
    """An optional dependency is not installed; the message names the extra."""
