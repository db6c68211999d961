"""Which frontends are tested beside those of the tests' own environment, and where are they?

Each is an environment of its own, because they exclude each other: the oldest JupyterLab and Notebook for which the
extension is made, and the newest with a server that writes notebooks itself. One more has the clients that know nothing
of us. The kernels, and the extension, are of this tree. ``python -m frontends`` in this directory makes them, or makes
them anew; with ``uv``, where it is installed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = Path(os.environ.get("RTC_TEST_FRONTENDS") or Path(__file__).parent / ".frontends").absolute()


@dataclass(frozen=True)
class Frontend:
    """What a server has to be started with. ``packages``: of its own environment; none: it is in the tests'."""

    name: str
    command: str = ""
    packages: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def python(self) -> Path:
        return DIRECTORY / self.name / "bin" / "python" if self.packages else Path(sys.executable)

    @property
    def lacks(self) -> str:
        """What there is to do before it can be tested; empty where all is there."""
        if not self.packages:
            package = {"lab": "jupyterlab", "notebook": "notebook"}[self.command]
            return "" if importlib.util.find_spec(package) else f"not installed: {package}"
        return "" if self.python.exists() else f"run `python -m frontends {self.name}` in tests"


LAB, NOTEBOOK = Frontend("lab", "lab"), Frontend("notebook", "notebook")
OLD_LAB = Frontend("lab-4.0", "lab", ("jupyterlab==4.0.0",))
OLD_NOTEBOOK = Frontend("notebook-7.0", "notebook", ("notebook==7.0.0", "jupyterlab<4.1"))
COLLABORATION = Frontend("collaboration", "lab", ("jupyterlab", "jupyter-collaboration"))
SERVER_DOCUMENTS = Frontend("server-documents", "lab", ("jupyterlab", "jupyter-server-documents"))

HUB = Frontend("hub", "hub", ("jupyterhub", "jupyterlab", "jupyter-server-proxy", "pycrdt>=0.14.3", "rich>=13.7"))
"""JupyterHub, and what it starts for each of its users: servers, and kernels in their environment."""

READERS = (LAB, NOTEBOOK, OLD_LAB, OLD_NOTEBOOK)
"""They leave it to the page what a notebook shows."""
WRITERS = (COLLABORATION, SERVER_DOCUMENTS)
"""Their server shares the notebook between pages, or writes its outputs."""
CLIENTS = Frontend(
    "clients",
    packages=(
        "ipywidgets>=8",
        "jupyter-console>=6.6",
        "jupyter-kernel-gateway>=3",
        "nbclassic>=1.1",
        "PyQt6>=6.5",
        "qtconsole>=5.5",
        "voila>=0.5.6",
    ),
)
"""Programs that know nothing of us, in one environment, because they go together."""


def make(frontend: Frontend) -> None:
    """Its environment, in place of one that is there."""
    home = DIRECTORY / frontend.name
    here = [sys.executable, "-m", "venv", "--clear", str(home)]
    pip = [str(frontend.python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if uv is not None:
        venv = [uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(home)]
        install = [uv, "pip", "install", "--quiet", "--python", str(frontend.python), *frontend.packages]
        if all(subprocess.run(command, check=False).returncode == 0 for command in (venv, install)):
            return  # else it may be that only pip is told where packages are to be had
    for command in (here, [*pip, *frontend.packages]):
        subprocess.run(command, check=True)


if __name__ == "__main__":
    for each in (*READERS, *WRITERS, HUB, CLIENTS):
        if each.packages and (len(sys.argv) == 1 or each.name in sys.argv[1:]):
            print(f"{each}: {', '.join(each.packages)}", flush=True)
            make(each)
