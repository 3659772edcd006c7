"""For this library's own tests and for its users': criteria keep their contract, models can be pruned."""

from .checks import assert_masked_equals_pruned, check_criterion, untouched
from .examination import Examination, assert_prunable, examine

__all__ = [
    "Examination",
    "assert_masked_equals_pruned",
    "assert_prunable",
    "check_criterion",
    "examine",
    "untouched",
]
