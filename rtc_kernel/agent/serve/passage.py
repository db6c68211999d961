"""How do others get to the side socket through a Jupyter server?

Pure: settings, environment and what is installed in, an address out. The server must have jupyter-server-proxy, which
passes ``BASE/proxy/PORT/…`` on to ``127.0.0.1:PORT`` for whoever may use that server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit


@dataclass(frozen=True, slots=True)
class Passage:
    """A Jupyter server that may pass requests on to us.

    Attributes:
        base: where it is, with a slash at the end; a path alone where nobody has said under which name it is reached.
        is_sure: it is known to pass requests on. Else it is known to be there.
    """

    base: str
    is_sure: bool

    @property
    def origin(self) -> str:
        """``scheme://host[:port]`` of its pages, in lower case; empty where its name is not known."""
        parts = urlsplit(self.base)
        return f"{parts.scheme}://{parts.netloc}".lower() if parts.netloc else ""

    def link(self, port: int, secret: str) -> str:
        """The viewer of the kernel that listens there."""
        return f"{self.base}proxy/{port}/?token={quote(secret)}"


def find_passage(public_url: str, environ: Mapping[str, str], *, has_proxy: bool) -> Passage | None:
    """The server that our frontends come through, as far as can be said from here.

    Args:
        public_url: the setting. Without a path it is completed with the one that JupyterHub has told.
        environ: the environment: JupyterHub tells a user's server its path, and its address where the
            administrator has told that to the hub.
        has_proxy: whether jupyter-server-proxy is installed where the kernel runs, and so in a server of the same
            environment.
    """
    path = _with_slash(environ.get("JUPYTERHUB_SERVICE_PREFIX", "/"))
    if public_url:
        has_path = bool(urlsplit(public_url).path.strip("/"))
        return Passage(_with_slash(public_url) if has_path else public_url.rstrip("/") + path, is_sure=True)
    told = environ.get("JUPYTERHUB_PUBLIC_URL", "")
    if told.startswith(("http://", "https://")):
        return Passage(_with_slash(told), is_sure=has_proxy)
    is_there = has_proxy or "JUPYTERHUB_SERVICE_PREFIX" in environ
    return Passage(path, is_sure=has_proxy) if is_there else None


def _with_slash(text: str) -> str:
    return text.rstrip("/") + "/"
