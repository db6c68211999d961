"""Which kernelspecs are ours, and how does one come to be?

A spec of ours starts the relay with the name of the kernel behind it. The child's own spec stays where it is and
stays the authority: the relay reads its argv and environment at every start, so an update of the wrapped kernel
needs no new wrapper. What is copied is only what a frontend reads from the spec before it starts the kernel:
language, interrupt mode, metadata and logos. ``env`` is therefore left out: the relay starts the child through the
child's own spec, which brings it.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec, KernelSpecManager, NoSuchKernel

from .errors import SetupError
from .relay.child import LOCAL_PROVISIONERS

NATIVE = "rtc-python"
PREFIX = "rtc-"

_NAME = re.compile(r"[a-z0-9._\-]+")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a kernelspec is to be: at most one of them; neither is the environment that runs us."""

    user: bool = False
    prefix: str | None = None

    def directory(self) -> Path:
        """The directory that holds the specs."""
        if self.user:
            return Path(KernelSpecManager().user_kernel_dir)
        return Path(self.prefix or sys.prefix).absolute() / "share" / "jupyter" / "kernels"


@dataclass(frozen=True, slots=True)
class Installed:
    """A spec of ours that was written, or found. ``kernel``: the one behind it; empty for ipykernel."""

    name: str
    display_name: str
    kernel: str
    path: Path


def is_ours(argv: list[str]) -> bool:
    """Whether a spec's command line starts the relay."""
    return any(flag == "-m" and module.split(".")[0] == "rtc_kernel" for flag, module in pairwise(argv)) or bool(
        argv and Path(argv[0]).name.startswith("rtc-kernel")
    )


def child_of(argv: list[str]) -> str:
    """The name of the kernel behind a spec of ours; empty for ipykernel of the same Python."""
    return next((name for flag, name in pairwise(argv) if flag == "--kernel"), "")


def install(
    kernel: str | None = None,
    *,
    name: str | None = None,
    display_name: str | None = None,
    place: Place | None = None,
) -> Installed:
    """Write a kernelspec of ours.

    Args:
        kernel: name of the installed kernelspec to wrap; null: "RTC Python" itself.
        name: of the new spec; ``rtc-<kernel>`` unless given.
        display_name: what a frontend shows; "RTC" and the child's shortened unless given.
        place: where; the environment that runs us unless given.

    Raises:
        SetupError: no such kernel, it is one of ours, the name is no name, or the place cannot be written.
    """
    place = place or Place()
    if kernel is None:
        value, logos = _native_spec(display_name), _logos_of(None)
    else:
        child = find(kernel)
        if is_ours(child.argv):
            raise SetupError(f"{kernel!r} is an RTC kernel already", "give the kernel behind it", 2)
        provisioner = child.metadata.get("kernel_provisioner", {}).get("provisioner_name", LOCAL_PROVISIONERS[0])
        if provisioner not in LOCAL_PROVISIONERS:
            raise SetupError(f"{kernel!r} is started by {provisioner!r}", "wrap a kernel that is a local process", 2)
        value, logos = _wrapper_spec(kernel, child, display_name), _logos_of(Path(child.resource_dir))
    name = (name or (NATIVE if kernel is None else PREFIX + kernel.lower())).lower()
    if not _NAME.fullmatch(name):
        raise SetupError(f"{name!r} is no name for a kernelspec", "use letters, digits, '.', '_' and '-'", 2)
    target = place.directory() / name
    if (target / "kernel.json").exists() and not is_ours(_argv(target)):
        raise SetupError(f"{target} holds a kernelspec that is not ours", "choose another --name", 2)
    try:
        _write(target, value, logos)
    except OSError as exc:
        raise SetupError(f"{target} cannot be written ({exc.strerror or exc})", "try --user or --prefix") from exc
    return Installed(name, value["display_name"], kernel or "", target)


def find(kernel: str) -> KernelSpec:
    """An installed kernelspec.

    Raises:
        SetupError: there is none of this name; lists those that there are.
    """
    manager = KernelSpecManager()
    try:
        return manager.get_kernel_spec(kernel)
    except NoSuchKernel:
        known = ", ".join(sorted(manager.find_kernel_specs())) or "none"
        raise SetupError(f"no kernelspec {kernel!r} is installed", f"known are: {known}", 2) from None


def wrappers() -> list[Installed]:
    """The specs of ours that this Python's Jupyter finds, by name."""
    found = []
    for name, directory in sorted(KernelSpecManager().find_kernel_specs().items()):
        path = Path(directory)
        argv = _argv(path)
        if is_ours(argv):
            spec = json.loads((path / "kernel.json").read_text(encoding="utf-8"))
            found.append(Installed(name, str(spec.get("display_name", name)), child_of(argv), path))
    return found


def uninstall(name: str, *, place: Place | None = None) -> Path:
    """Remove a kernelspec of ours.

    Args:
        name: the spec's, or the wrapped kernel's.
        place: where; wherever Jupyter finds it unless given.

    Returns:
        The directory that is gone.

    Raises:
        SetupError: there is none, it is not ours, or it cannot be removed.
    """
    if place is None:
        specs = {key: Path(path) for key, path in KernelSpecManager().find_kernel_specs().items()}
    else:
        specs = {path.name: path for path in place.directory().glob("*") if (path / "kernel.json").is_file()}
    ours = {key: path for key, path in specs.items() if is_ours(_argv(path))}
    path = ours.get(name.lower()) or ours.get(PREFIX + name.lower())
    if path is None:
        what = f"kernelspec {name!r} is not ours" if name.lower() in specs else f"no RTC kernelspec {name!r}"
        raise SetupError(what, f"ours are: {', '.join(sorted(ours)) or 'none'}", 2)
    try:
        shutil.rmtree(path)
    except OSError as exc:
        raise SetupError(f"{path} cannot be removed ({exc.strerror or exc})", "remove it by hand") from exc
    return path


def wrapper_for(kernel: str) -> str | None:
    """The name of our spec that wraps this kernel; null where there is none."""
    return next((spec.name for spec in wrappers() if spec.kernel == kernel), None)


def short_name(display_name: str) -> str:
    """A child's display name, fit to stand behind "RTC": without what is in brackets at its end, and without the
    version that goes with it (``Python 3 (ipykernel)`` → ``Python 3``, ``Julia 1.11.2`` → ``Julia 1.11``)."""
    bare = re.sub(r"\s*[\(\[][^()\[\]]*[\)\]]\s*$", "", display_name).strip() or display_name.strip()
    return re.sub(r"(\d+\.\d+)(\.\d+)+$", r"\1", bare)


def _wrapper_spec(kernel: str, child: KernelSpec, display_name: str | None) -> dict[str, Any]:
    label = short_name(child.display_name or kernel)
    # The provisioner stays with the child: the relay starts the child through it, the frontend starts the relay.
    metadata = {key: value for key, value in child.metadata.items() if key != "kernel_provisioner"}
    return {
        "argv": [sys.executable, "-m", "rtc_kernel", "--kernel", kernel, "-f", "{connection_file}"],
        "display_name": display_name or f"RTC {label[:1].upper()}{label[1:]}",
        "language": child.language,
        "interrupt_mode": child.interrupt_mode or "signal",
        "metadata": metadata | {"supported_encryption": ["curve"]},  # the front is ours: it does Curve
        "kernel_protocol_version": "5.5",
    }


def _native_spec(display_name: str | None) -> dict[str, Any]:
    return {
        "argv": [sys.executable, "-m", "rtc_kernel", "-f", "{connection_file}"],
        "display_name": display_name or "RTC Python",
        "language": "python",
        "interrupt_mode": "signal",
        "metadata": {"debugger": True, "supported_encryption": ["curve"]},
        "kernel_protocol_version": "5.5",
    }


def _argv(directory: Path) -> list[str]:
    try:
        argv = json.loads((directory / "kernel.json").read_text(encoding="utf-8"))["argv"]
    except (OSError, ValueError, KeyError, TypeError):
        return []
    return [str(part) for part in argv] if isinstance(argv, list) else []


def _logos_of(child: Path | None) -> list[Path]:
    """The child's logos, or ours: from where the wheel put them, or from the source tree."""
    ours = (Path(sys.prefix) / "share" / "jupyter" / "kernels" / NATIVE, Path(__file__).parents[1] / "kernelspec")
    for directory in (child, *ours):
        if directory is not None and (found := sorted(directory.glob("logo-*"))):
            return found
    return []


def _write(target: Path, value: dict[str, Any], logos: list[Path]) -> None:
    """The directory appears whole, or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as made:
        fresh = Path(made) / target.name
        fresh.mkdir(mode=0o755)
        (fresh / "kernel.json").write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        for file in logos:
            shutil.copyfile(file, fresh / file.name)
        if target.exists():
            shutil.rmtree(target)
        fresh.rename(target)
