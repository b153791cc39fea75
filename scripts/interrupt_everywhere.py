"""Interrupts a search at random moments, imports included, resumes it with the same command, and counts the failures.

    python scripts/interrupt_everywhere.py --tries 40 -- search study.yaml --out FOLDER

FOLDER is created, and removed whenever its search finishes. The moments are drawn uniformly over an uninterrupted
run.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

LONGEST_SECONDS = 5.0
"""Greatest allowed time from the signal to the end of the process [s]."""


def main() -> None:
    """Interrupts and resumes; prints each failure, and whether the last search could be resumed to its end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGINT", choices=["SIGINT", "SIGTERM", "SIGHUP"])
    parser.add_argument("command", nargs="+", help="paredown command with --out")
    options = parser.parse_args()
    out = Path(options.command[options.command.index("--out") + 1])
    draw = random.Random(options.seed)

    def fresh() -> None:
        shutil.rmtree(out, ignore_errors=True)

    def started() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "paredown", *options.command]
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    fresh()
    begun = time.monotonic()
    with started() as process:
        process.communicate()
    whole = time.monotonic() - begun
    assert process.returncode == 0, "the search fails without an interruption"
    print(f"uninterrupted: {whole:.1f} s", flush=True)
    fresh()
    tries, slowest, faults = 0, 0.0, 0
    while tries < options.tries:
        moment = draw.uniform(0.0, whole)
        with started() as process:
            try:
                process.communicate(timeout=moment)
                fresh()
                continue  # finished before the signal was due
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, options.signal))
            sent = time.monotonic()
            _, said = process.communicate()
        if process.returncode == 0:
            fresh()
            continue  # the signal came after the last result
        tries += 1
        took = time.monotonic() - sent
        slowest = max(slowest, took)
        ours = [line for line in said.splitlines() if line.startswith("stopped")]
        good = (
            process.returncode == 130 and took <= LONGEST_SECONDS and len(ours) == 1 and said.rstrip().endswith(ours[0])
        )
        if not good or "Traceback" in said:
            faults += 1
            print(f"at {moment:.2f} s: exit code {process.returncode} after {took:.1f} s, {said[-300:]!r}", flush=True)
    with started() as process:
        process.communicate()
    print(
        f"{tries - faults} of {tries} stops were correct, the slowest after {slowest:.1f} s; "
        f"exit code of the last run: {process.returncode}"
    )
    sys.exit(bool(faults or process.returncode))


if __name__ == "__main__":
    main()
