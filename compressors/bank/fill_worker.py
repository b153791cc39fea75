"""Program of a process that fills a bank; `fill` starts it as a `paredown.space.system.child`.

Its argument is the file descriptor of the connection over which `fill` sends jobs.
"""

from __future__ import annotations

import sys
import traceback
from multiprocessing.connection import Connection

import torch

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank.bank import Bank
from paredown.compressors.bank.folder import bank_in_use
from paredown.compressors.calibration.statistics_folder import StatisticsFolder
from paredown.compressors.original.checkpoint import config_of
from paredown.compressors.original.lazy_weights import original_weights


def main(number: int) -> None:
    """Makes records until the connection closes. Reports each finished record, or the error that ends this process."""
    torch.set_num_threads(1)
    with Connection(number) as parent:
        try:
            checkpoint, statistics, folder, calibration = parent.recv()
            weights = original_weights(checkpoint, config_of(checkpoint))
            bank = Bank(folder, weights, StatisticsFolder(statistics) if statistics else None, calibration)
            parent.send(None)
            with bank_in_use(folder):  # this process may outlive its parent, which holds the same lock
                while True:
                    for site, choice, path in parent.recv():
                        bank.make(site, choice, path)
                        parent.send(None)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except Exception as fault:
            fault.add_note(traceback.format_exc())
            parent.send(fault)


if __name__ == "__main__":
    main(int(sys.argv[1]))
