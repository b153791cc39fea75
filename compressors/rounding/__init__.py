"""Rounding algorithms: one file per algorithm, registered by being in this folder.

Like the methods, these files import torch only inside the functions that touch tensors.
"""

from paredown.space.system.registry import import_folder

import_folder(__name__, list(__path__))
