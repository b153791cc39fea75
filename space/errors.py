"""The tree of our errors.

ParedownError                  exit code 2
├── PlanError(ValueError)          an invalid plan or choice
├── StudyError(ValueError)         an invalid study file, option of a study, or data of a study
├── UnknownNameError(LookupError)  an unknown method, target, sampler or site
├── ExtensionError(ImportError)    an extension of another distribution that cannot be used
├── CheckpointError(ValueError)    a model folder that is missing, truncated or of an unsupported kind
├── OutputError(OSError)           an output folder that cannot be written: not ours, or the disk is full
├── EvaluationError(RuntimeError)  a measured value that is not finite: the trial fails, the study continues
├── WorkerError(RuntimeError)      a worker process that died; finished work is kept
├── VerificationError(RuntimeError) a written model that differs from the scored one
├── DamagedError(RuntimeError)     a damaged file of ours; it was removed, and the same command recreates it
└── BudgetError(ValueError)        no plan meets the budget; exit code 3
"""

from __future__ import annotations

import errno
from errno import ENOMEM


class ParedownError(Exception):
    """Base of all our errors. The text has one line per fault, each with its remedy."""

    exit_code = 2


class PlanError(ParedownError, ValueError):
    """An invalid plan or choice."""


class StudyError(ParedownError, ValueError):
    """An invalid study file, option of a study, or data of a study."""


class UnknownNameError(ParedownError, LookupError):
    """An unknown name of a method, target, sampler or site."""


class ExtensionError(ParedownError, ImportError):
    """An extension of another distribution that cannot be imported, or is not what its registry takes."""


class CheckpointError(ParedownError, ValueError):
    """A model folder that is missing, truncated or of a kind that cannot be compressed."""


class OutputError(ParedownError, OSError):
    """An output folder that cannot be written."""


class EvaluationError(ParedownError, RuntimeError):
    """A measured value that is not finite."""


class WorkerError(ParedownError, RuntimeError):
    """A worker process that died, usually because memory ran out."""


class VerificationError(ParedownError, RuntimeError):
    """A written model that differs from the scored one."""


class DamagedError(ParedownError, RuntimeError):
    """A damaged file of ours that was removed; the same command recreates it."""


class BudgetError(ParedownError, ValueError):
    """No plan in the space meets the budget."""

    exit_code = 3


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether an error means that memory ran out.

    torch, safetensors and the dynamic loader have no error class for it, so their messages are searched.
    """
    if isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno == ENOMEM):
        return True
    words = ("allocate memory", "out of memory", "not enough memory", "failed to map segment", "(os error 12)")
    return any(part in str(fault) for part in words)


def write_remedy(error: Exception) -> str:
    """What a person can do about a file or folder that cannot be written."""
    too_long = getattr(error, "errno", None) == errno.ENAMETOOLONG
    return "choose a shorter name" if too_long else "free some space or choose another folder"
