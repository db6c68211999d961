"""``install`` and ``uninstall``: kernelspecs of ours."""

from __future__ import annotations

import argparse
import sys

from .. import install
from ..config import RTCKernel
from .terminal import emit, out


def _place(args: argparse.Namespace) -> install.Place | None:
    if not (args.user or args.sys_prefix or args.prefix):
        return None
    return install.Place(user=args.user, prefix=sys.prefix if args.sys_prefix else args.prefix)


def install_spec(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc install``."""
    spec = install.install(args.kernel, name=args.name, display_name=args.display_name, place=_place(args))
    if args.json:
        emit({"name": spec.name, "display_name": spec.display_name, "kernel": spec.kernel, "path": str(spec.path)})
    else:
        out().print(f"Installed {spec.display_name} as {spec.name} in {spec.path}")
    return 0


def uninstall_spec(args: argparse.Namespace, _settings: RTCKernel) -> int:
    """``jupyter rtc uninstall``."""
    path = install.uninstall(args.name, place=_place(args))
    if args.json:
        emit({"path": str(path)})
    else:
        out().print(f"Removed {path}")
    return 0
