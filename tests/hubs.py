"""A real JupyterHub, as an administrator sets one up: its proxy, its users' servers, all on this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
from conftest import wait_until
from frontends import HUB
from jupyterlab_page import KERNELSPEC, LABEXTENSION
from tools import node_lacks

import rtc_kernel
from benchmarks.ports import free_ports

PROXY = Path(__file__).parent / "node"
NAME = "hub.example.org"
"""What browsers call it; they are told that this is 127.0.0.1."""
PASSWORD = "only for this test"
STARTED_S = 90.0
"""Until the hub must be there; a busy machine takes its time."""
OWNER, COLLEAGUE, STRANGER = "ada", "bob", "cyd"
"""Users: one with a server, one who may open it, one who may not."""

LACKS = HUB.lacks or node_lacks("node", PROXY, "configurable-http-proxy")


@dataclass(frozen=True)
class Hub:
    """A running hub. ``url``: as browsers know it, with its slash."""

    url: str
    home: Path
    process: psutil.Process

    def server(self, user: str) -> str:
        """Where a user's server is."""
        return f"{self.url}user/{user}/"

    def root(self, user: str) -> Path:
        """A user's home directory, which the server shows."""
        return self.home / "homes" / user

    @property
    def log(self) -> str:
        return (self.home / "hub.log").read_text()


CONFIGURATION = """
import os
c = get_config()
c.JupyterHub.bind_url = "http://127.0.0.1:{port}"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.JupyterHub.public_url = "{url}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.authenticator_class = "dummy"
c.DummyAuthenticator.password = {password!r}
c.Authenticator.allow_all = True
c.JupyterHub.load_roles = [
    {{"name": "colleagues", "scopes": ["access:servers!user={owner}"], "users": [{colleague!r}]}}
]
c.JupyterHub.spawner_class = "simple"
c.SimpleLocalProcessSpawner.home_dir_template = "{home}/homes/{{username}}"
c.Spawner.cmd = [{python!r}, "-m", "jupyterhub.singleuser"]
c.Spawner.args = ["--allow-root"] if os.geteuid() == 0 else []
c.Spawner.environment = {environment!r}
c.Spawner.http_timeout = c.Spawner.start_timeout = 90
"""


@contextlib.contextmanager
def jupyter_hub(home: Path) -> Iterator[Hub]:
    """A hub with JupyterLab, jupyter-server-proxy, and this tree's extension and kernelspec for everybody."""
    port, hub_port, proxy_port = free_ports(3)
    url = f"http://{NAME}:{port}/"
    share, settings = home / "share", home / "settings"
    (share / "labextensions" / "@rtc-kernel").mkdir(parents=True)
    (share / "labextensions" / "@rtc-kernel" / "lab").symlink_to(LABEXTENSION)
    (share / "kernels" / "rtc-python").mkdir(parents=True)
    spec = json.loads(KERNELSPEC.read_text())
    spec["argv"][0] = str(HUB.python)  # as it is where an administrator has installed us beside the server
    (home / "ours").mkdir()
    (home / "ours" / "rtc_kernel").symlink_to(Path(rtc_kernel.__file__).parent)
    spec["env"] = {"PYTHONPATH": str(home / "ours")}
    (share / "kernels" / "rtc-python" / "kernel.json").write_text(json.dumps(spec))
    (settings / "labconfig").mkdir(parents=True)
    page_config = {"disabledExtensions": {"@jupyterlab/apputils-extension:announcements": True}}
    (settings / "labconfig" / "page_config.json").write_text(json.dumps(page_config))
    options = {"extension_manager": "readonly", "check_for_updates_class": "jupyterlab.NeverCheckForUpdate"}
    options |= {"news_url": "", "expose_app_in_browser": True}
    (settings / "jupyter_server_config.json").write_text(json.dumps({"LabApp": options}))
    for user in (OWNER, COLLEAGUE, STRANGER):
        (home / "homes" / user).mkdir(parents=True)
    environment = {
        "JUPYTER_PATH": str(share),
        "JUPYTER_CONFIG_PATH": str(settings),
        "JUPYTER_PREFER_ENV_PATH": "0",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    (home / "jupyterhub_config.py").write_text(
        CONFIGURATION.format(
            port=port,
            hub_port=hub_port,
            proxy_port=proxy_port,
            url=url,
            home=home,
            password=PASSWORD,
            owner=OWNER,
            colleague=COLLEAGUE,
            proxy=str(PROXY / "node_modules" / ".bin" / "configurable-http-proxy"),
            python=str(HUB.python),
            environment=environment,
        )
    )
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("RTC_KERNEL_", "JUPYTER"))}
    argv = [str(HUB.python), "-m", "jupyterhub", "--config", str(home / "jupyterhub_config.py")]
    with (
        (home / "hub.log").open("w") as log,
        subprocess.Popen(argv, cwd=home, env=outside, stdout=log, stderr=log) as it,
    ):
        process = psutil.Process(it.pid)

        def answers() -> bool:
            assert it.poll() is None, (home / "hub.log").read_text()
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/hub/api", timeout=5):
                return True
            return False

        try:
            wait_until(answers, "the hub has started", STARTED_S)
            yield Hub(url, home, process)
        finally:
            started = process.children(recursive=True)
            it.send_signal(signal.SIGTERM)
            it.wait(60)
            for left in started:  # it stops its proxy and its users' servers; whatever it did not is not to stay
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
