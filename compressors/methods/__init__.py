"""Compression methods: one file per method, registered by being in this folder.

A method file declares knobs, bytes and what it leaves to load (`storage`), and imports torch only inside the functions
that touch tensors, so that a plan can be read, checked and diffed without it.
"""

from paredown.space.system.registry import import_folder

import_folder(__name__, list(__path__))
