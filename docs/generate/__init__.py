"""The generated parts of the documents: ``python -m docs.generate``."""
