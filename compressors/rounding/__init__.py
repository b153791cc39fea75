"""How a weight finds its place on a grid: one file per algorithm; a new one is found by being here.

Like the methods, these files import torch only inside the functions that touch tensors.
"""

from paredown.space.registry import import_folder

import_folder(__name__, list(__path__))
