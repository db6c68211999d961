"""Entry point: ``python -m vectors``, in ``tests``."""

from .files import write

write()
