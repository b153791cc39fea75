"""Check of a study's time limit before any work."""

from __future__ import annotations

import time
from pathlib import Path

from paredown.search.cost.cost import START_SECONDS, estimate
from paredown.search.trials.clock import Clock
from paredown.search.workbench.survey import survey
from paredown.space.errors import StudyError
from paredown.space.study_file import StudyFile


def check_limit(study_file: StudyFile, clock: Clock, folder: Path) -> str:
    """Checks that a time limit lets a search begin.

    Args:
        study_file: The study.
        clock: Time limit of the run.
        folder: Study folder; a study that is resumed is not checked.

    Returns:
        A warning if the limit is shorter than the steps around the trials take; otherwise empty.

    Raises:
        StudyError: If not even the calibration texts can be read in time.
    """
    if not clock.is_limited or (folder / "inputs.json").is_file():
        return ""
    cost = estimate(study_file, *survey(study_file))
    limit, gone = clock.ends - clock.began, time.monotonic() - clock.began
    least, most = (_rounded(gone + seconds) for seconds in cost.around_seconds)
    takes = f"a search takes {least:,} to {most:,} s besides its trials"
    if limit < START_SECONDS + study_file.tokens.calibration * cost.trial_seconds[0] / cost.tokens_per_trial:
        raise StudyError(f"a limit of {limit:.2g} s is too short to begin: {takes}; give --timeout {least} or more")
    if limit < least:
        return f"the limit is {limit:.0f} s, but {takes}: the plan may end up unguarded or unmeasured"
    return ""


def _rounded(seconds: float) -> int:
    """Seconds rounded up to two significant digits."""
    step = 1 if seconds < 100 else int(10 ** (len(str(int(seconds))) - 2))
    return int(-(-seconds // step) * step)
