"""``inventory.json`` of a study folder: the sites of its model. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import TypeAdapter

from paredown.space.site import Inventory
from paredown.space.system.files import read_stored, write_atomically

INVENTORY = "inventory.json"


def write_inventory(inventory: Inventory, folder: Path) -> None:
    """Writes the file atomically."""
    write_atomically(folder / INVENTORY, TypeAdapter(Inventory).dump_json(inventory, indent=1))


def read_inventory(folder: Path) -> Inventory:
    """The sites of a study's model.

    Raises:
        StudyError: If the file is missing or damaged.
    """
    return read_stored(folder / INVENTORY, TypeAdapter(Inventory).validate_python, "run its search again to resume it")
