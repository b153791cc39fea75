"""``python -m paredown``."""

from paredown.entry import main

main()
