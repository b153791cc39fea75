"""What tests share: pico models, toy problems, texts, commands; imported as ``shared``."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The checkout."""
