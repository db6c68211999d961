"""Which frontends are tested beside those of the tests' own environment, and where are they?

Each is an environment of its own, because they exclude each other: the oldest JupyterLab and Notebook for which the
extension is made, and the newest with a server that writes notebooks itself. The kernels, and the extension, are of
this tree. ``python -m frontends`` in this directory makes them, or makes them anew; with ``uv``, where it is installed.
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
    command: str
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

READERS = (LAB, NOTEBOOK, OLD_LAB, OLD_NOTEBOOK)
"""They leave it to the page what a notebook shows."""
WRITERS = (COLLABORATION, SERVER_DOCUMENTS)
"""Their server shares the notebook between pages, or writes its outputs."""


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
    for each in (*READERS, *WRITERS):
        if each.packages and (len(sys.argv) == 1 or each.name in sys.argv[1:]):
            print(f"{each}: {', '.join(each.packages)}", flush=True)
            make(each)
