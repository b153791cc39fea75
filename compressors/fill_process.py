"""A process that fills a bank: a `paredown.space.child`, run with the number of a connection over which `fill` hands it jobs."""

from __future__ import annotations

import sys
import traceback
from multiprocessing.connection import Connection

import torch

import paredown.compressors.methods  # noqa: F401 - registers the methods
from paredown.compressors.bank import Bank
from paredown.compressors.bank_folder import bank_in_use
from paredown.compressors.checkpoint import config_of
from paredown.compressors.statistics_folder import StatisticsFolder
from paredown.compressors.weights import original_weights


def main(number: int) -> None:
    """Makes records until the other side closes the connection or is gone; tells it of each, or of the fault that ends it."""
    torch.set_num_threads(1)
    with Connection(number) as parent:
        try:
            checkpoint, statistics, folder, calibration = parent.recv()
            weights = original_weights(checkpoint, config_of(checkpoint))
            bank = Bank(folder, weights, StatisticsFolder(statistics) if statistics else None, calibration)
            parent.send(None)
            with bank_in_use(folder):  # also where this process outlives the other
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
