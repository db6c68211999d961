"""Other systems that run cells into a shared document, so that figures can be held against theirs.

One module per system says how it is asked; ``server`` makes its environment and starts its Jupyter server. They are
used as their own pages drive them: an HTTP request to run, and the notebook's WebSocket to follow.
"""

from __future__ import annotations

from . import documents, nbmodel
from .server import Adapter, driving

__all__ = ["ADAPTERS", "Adapter", "driving"]

ADAPTERS = (nbmodel.ADAPTER, documents.ADAPTER)
