"""One file per method; a new one is found by being here.

A method file declares knobs, bytes and what it supports, and imports torch only inside the functions that touch tensors,
so that a plan can be read, checked and diffed without it.
"""

from paredown.space.registry import import_folder

import_folder(__name__, list(__path__))
