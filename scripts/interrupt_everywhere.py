"""Interrupts a search at random moments, imports included, goes on with the same command, and counts what happens.

    python scripts/interrupt_everywhere.py --tries 40 -- search study.yaml --out FOLDER

FOLDER is made, and removed whenever the search in it came to its end. Moments are drawn evenly from an uninterrupted run.
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


def main() -> None:
    """Tries, tells of each that was not as it should be, and then whether the last one could go on to the end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", default="SIGINT", choices=["SIGINT", "SIGTERM", "SIGHUP"])
    parser.add_argument("command", nargs="+", help="of paredown, with --out")
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
    assert process.returncode == 0, "the search fails by itself"
    print(f"uninterrupted: {whole:.1f} s", flush=True)
    fresh()
    tries, slowest, faults = 0, 0.0, 0
    while tries < options.tries:
        moment = draw.uniform(0.0, whole)
        with started() as process:
            try:
                process.communicate(timeout=moment)
                fresh()
                continue  # at its end before the moment came
            except subprocess.TimeoutExpired:
                process.send_signal(getattr(signal, options.signal))
            sent = time.monotonic()
            _, said = process.communicate()
        if process.returncode == 0:
            fresh()
            continue  # its last result was out already
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
        f"{tries - faults} of {tries} as they should be, the slowest end after {slowest:.1f} s; the last run: {process.returncode}"
    )
    sys.exit(bool(faults or process.returncode))


if __name__ == "__main__":
    main()
