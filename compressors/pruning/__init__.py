"""Which weights of a matrix go: one file per criterion; a new one is found by being here.

Like the methods, these files import torch only inside the functions that touch tensors.
"""

from paredown.space.registry import import_folder

import_folder(__name__, list(__path__))
