"""``python -m paredown``."""

from paredown.cli import main

main()
