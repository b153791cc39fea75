"""What can go wrong, as one tree.

ParedownError                  exit code 2
├── PlanError(ValueError)          a plan or a choice that cannot be
├── StudyError(ValueError)         a study file, an option or its data
├── UnknownNameError(LookupError)  a method, target, sampler or site that nobody registered
├── CheckpointError(ValueError)    a model folder that is missing, truncated or of another kind
├── OutputError(OSError)           a folder that cannot be written: not ours, or the disk is full
├── EvaluationError(RuntimeError)  a measurement that is not finite: the trial fails, the study goes on
├── WorkerError(RuntimeError)      a process of ours that died: what it had finished is kept
├── VerificationError(RuntimeError) a written model that is not what was scored
├── DamagedError(RuntimeError)     a file of ours that is damaged: it was removed, and the same command makes it again
└── BudgetError(ValueError)        nothing meets the budget; exit code 3
"""

from __future__ import annotations

from errno import ENOMEM


class ParedownError(Exception):
    """Base of all our errors; its text is one line with the remedy."""

    exit_code = 2


class PlanError(ParedownError, ValueError):
    """A plan or a choice that cannot be."""


class StudyError(ParedownError, ValueError):
    """A study file, an option of a study, or its data."""


class UnknownNameError(ParedownError, LookupError):
    """A name that nobody registered."""


class CheckpointError(ParedownError, ValueError):
    """A model folder that is missing, truncated, or of a kind that cannot be compressed."""


class OutputError(ParedownError, OSError):
    """A folder that cannot be written."""


class EvaluationError(ParedownError, RuntimeError):
    """A measured value that is not finite."""


class WorkerError(ParedownError, RuntimeError):
    """A process that died at its work, mostly for want of memory."""


class VerificationError(ParedownError, RuntimeError):
    """A written model that differs from the one that was scored."""


class DamagedError(ParedownError, RuntimeError):
    """A damaged file of ours that was removed, so that the same command makes it again."""


class BudgetError(ParedownError, ValueError):
    """No plan of the space meets the budget."""

    exit_code = 3


def is_out_of_memory(fault: BaseException) -> bool:
    """Whether a fault says that memory ran short; torch, safetensors and the system's loader have no class of their own for it."""
    if isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno == ENOMEM):
        return True
    words = ("allocate memory", "out of memory", "not enough memory", "failed to map segment", "(os error 12)")
    return any(part in str(fault) for part in words)
