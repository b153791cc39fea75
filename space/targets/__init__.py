"""Runtimes that a plan can be made for; each file of this folder registers its target on import."""

from paredown.space.system.registry import import_folder

import_folder(__name__, list(__path__))
