"""Every setting, its unit and its limit.

Four places, later ones win: the default here, ``jupyter_rtc_kernel_config.py`` (or ``.json``) on Jupyter's
configuration path as ``c.RTCKernel.<name>``, the environment as ``RTC_KERNEL_<NAME>``, and the command line as
``--RTCKernel.<name>=…``. A value of the wrong type or beyond its limit is a :class:`SetupError` that names the
setting and the place it came from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from traitlets import Bool, CaselessStrEnum, Float, Int, List, TraitError, Unicode
from traitlets.config import Config, Configurable
from traitlets.config.loader import (
    ConfigFileNotFound,
    DeferredConfigString,
    JSONFileConfigLoader,
    PyFileConfigLoader,
)

from .errors import SetupError
from .relay.transport import IPC_KERNELS, parse_words

CONFIG_NAME = "jupyter_rtc_kernel_config"
ENV_PREFIX = "RTC_KERNEL_"
ARG_PREFIX = "--RTCKernel."

KiB, MiB = 1 << 10, 1 << 20


class Address(Unicode[str, str]):
    """``http(s)://host[:port][/path]``, or nothing."""

    def validate(self, obj: Any, value: Any) -> str:
        """Called by traitlets."""
        text: str = super().validate(obj, value)
        try:
            parts = urlsplit(text)
            is_one = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_one = False
        if text and (not is_one or parts.query or parts.fragment or parts.username is not None):
            raise TraitError(f"{text!r} is no address of a server")
        return text


class RTCKernel(Configurable):
    """Settings of RTC kernels."""

    # --- the relay
    kernel = Unicode(
        "", help="Name of the kernelspec behind the relay. Empty: ipykernel of the Python that runs us."
    ).tag(config=True)
    transport = CaselessStrEnum(
        ["auto", "ipc", "tcp"],
        "auto",
        help="How the relay speaks to the real kernel. auto: loopback TCP where frontends come by TCP; ipc where they "
        "come by ipc or encrypted and the kernel is one of ipc_kernels.",
    ).tag(config=True)
    ipc_kernels = List(
        Unicode(),
        list(IPC_KERNELS),
        help="Words; a kernel with one of them in its command line (module or program) is spoken to over ipc.",
    ).tag(config=True)
    ipc_wait_s = Float(
        30.0,
        min=1.0,
        max=600.0,
        help="Seconds in which a kernel must have opened its ipc sockets. One that has not, or has ended, is started "
        "once more, over loopback TCP.",
    ).tag(config=True)
    agent = Bool(True, help="Start the agent. Without it the relay is a plain proxy and nothing is recorded.").tag(
        config=True
    )
    spool_bytes = Int(
        128 * MiB,
        min=MiB,
        max=1 << 34,
        help="Bytes that the relay keeps for an agent that is away or slow; what comes beyond is a named gap.",
    ).tag(config=True)
    recorded_bytes = Int(
        64 * MiB,
        min=64 * KiB,
        max=1 << 30,
        help="Bytes of one message's text or code that are recorded; of a longer one the first and the last half of "
        "that, and a line between says how much is left out. Frontends get the whole.",
    ).tag(config=True)
    magic_timeout_s = Float(
        10.0,
        min=0.1,
        max=600.0,
        help="Seconds until a %rtc line gets an error when the agent does not answer.",
    ).tag(config=True)
    magics = Bool(True, help="Answer %rtc lines. False: they go to the kernel like any other code.").tag(config=True)

    # --- sharing
    share = CaselessStrEnum(
        ["", "view", "run"],
        "",
        help="Share from the start with this role, as `%rtc share` would, and print the link to stderr.",
    ).tag(config=True)
    ip = Unicode("127.0.0.1", help="Address of the side socket. Loopback unless told otherwise.").tag(config=True)
    port = Int(
        0,
        min=0,
        max=65535,
        help="Port of the side socket. 0: chosen by the system once, then kept over restarts.",
    ).tag(config=True)
    certfile = Unicode(
        "",
        help="PEM file with the side socket's certificate chain: then it speaks TLS. To be set when ip is no loopback.",
    ).tag(config=True)
    keyfile = Unicode("", help="PEM file with the certificate's private key, where certfile does not hold it.").tag(
        config=True
    )
    public_url = Address(
        "",
        help="Address of the Jupyter server for others (https://hub.example.org), whose jupyter-server-proxy links go "
        "through; its name and its pages are then accepted. Without a path: the one that JupyterHub tells. Empty: "
        "what JupyterHub tells of both.",
    ).tag(config=True)
    allow_origins = List(
        Unicode(),
        [],
        help="Further Origins (scheme://host:port) whose pages may connect; our own page always may.",
    ).tag(config=True)

    # --- relays
    relays = List(
        Unicode(),
        [],
        help="Relay engines (Hocuspocus, ws:// or wss://) at which the kernel is published from the start, as "
        "`%rtc share --relay` would.",
    ).tag(config=True)
    relay_room = Unicode("", help="The room there. Empty: the kernel's id; one name for many kernels: one room.").tag(
        config=True
    )
    relay_role = CaselessStrEnum(
        ["view", "run"],
        "view",
        help="What may be done there. run: whom the relay lets write requests may run code here, as with a link of "
        "that role.",
    ).tag(config=True)
    relay_token = Unicode(
        "",
        help="The token that a relay's authentication is shown. Set it in the environment or the configuration file; "
        "command lines and cells can be read by others.",
    ).tag(config=True, secret=True)

    # --- the history
    history = CaselessStrEnum(
        ["runtime", "data", "memory"],
        "data",
        help="Where the history is kept: Jupyter's data or runtime directory, or in memory only.",
    ).tag(config=True)
    history_dir = Unicode("", help="Directory of the history, instead of Jupyter's data or runtime directory.").tag(
        config=True
    )
    journal_mode = CaselessStrEnum(
        ["auto", "wal", "delete"],
        "auto",
        help="SQLite's journal of the history. auto: wal, and delete on file systems that other machines or programs "
        "serve (NFS, CIFS, 9p, FUSE and their like), where wal is not safe.",
    ).tag(config=True)
    store_delay_s = Float(
        0.02, min=0.0, max=5.0, help="Seconds that rows may wait so that many are stored at once."
    ).tag(config=True)
    store_execution_bytes = Int(
        1 << 30,
        min=64 * KiB,
        max=1 << 40,
        help="Bytes of one execution that are stored; text beyond is left out, and the row says how much.",
    ).tag(config=True)
    keep_days = Float(
        0.0,
        min=0.0,
        max=100_000.0,
        help="Days after which a finished execution leaves the history. 0: it stays.",
    ).tag(config=True)
    keep_executions = Int(
        0,
        min=0,
        max=1 << 31,
        help="Executions that stay in one kernel's history; beyond, the oldest finished leave. 0: any number.",
    ).tag(config=True)
    keep_bytes = Int(
        4 << 30,
        min=0,
        max=1 << 44,
        help="Bytes of one kernel's history; beyond, the oldest finished executions leave. 0: any size.",
    ).tag(config=True)

    # --- the document
    window_executions = Int(
        500,
        min=1,
        max=100_000,
        help="Executions that stay in the live document; older ones are in the history.",
    ).tag(config=True)
    window_bytes = Int(
        32 * MiB,
        min=MiB,
        max=1 << 31,
        help="Bytes of executions that stay in the live document, about. Beyond, the oldest finished ones leave, first "
        "those that are not the latest of their cell; they are in the history.",
    ).tag(config=True)
    stream_bytes = Int(
        MiB,
        min=64 * KiB,
        max=256 * MiB,
        help="Bytes of one execution's text in the live document. Beyond, the first half and the newest half stay; the "
        "history has the whole.",
    ).tag(config=True)
    outputs_per_execution = Int(
        1000,
        min=2,
        max=100_000,
        help="Outputs of one execution in the live document. Beyond, the first half and the newest half stay; the "
        "history has them all.",
    ).tag(config=True)
    execution_bytes = Int(
        MiB,
        min=KiB,
        max=256 * MiB,
        help="Bytes of values kept in the outputs of one execution. Beyond, a value above 1 KiB is a blob.",
    ).tag(config=True)
    comms = Int(
        5000,
        min=10,
        max=100_000,
        help="Open comms (widgets) that are followed. Beyond, the one that was silent for longest is taken as closed.",
    ).tag(config=True)
    comms_bytes = Int(
        16 * MiB,
        min=64 * KiB,
        max=1 << 30,
        help="Bytes of comms in the live document, about. Beyond, those leave it that were not written to for longest.",
    ).tag(config=True)
    epoch_bytes = Int(
        512 * KiB,
        min=64 * KiB,
        max=1 << 30,
        help="Bytes that a first sync may carry of what was deleted, about. Beyond, the live document begins a new "
        "epoch once nothing was written for 0.5 s, at half as many again at once; peers sync again.",
    ).tag(config=True)
    inline_bytes = Int(
        64 * KiB,
        min=256,
        max=64 * MiB,
        help="Bytes of one output value kept in its row; a larger one is a blob.",
    ).tag(config=True)
    blob_bytes = Int(
        100 * MiB,
        min=KiB,
        max=1 << 31,
        help="Bytes of one blob; a larger value is only named, with its size.",
    ).tag(config=True)
    quiet_ms = Float(
        5.0,
        min=0.0,
        max=1000.0,
        help="Milliseconds without output after which the next one is written at once.",
    ).tag(config=True)
    load_ms = Float(
        50.0, min=1.0, max=1000.0, help="Milliseconds that output may be gathered while it keeps coming."
    ).tag(config=True)
    load_bytes = Int(64 * KiB, min=KiB, max=16 * MiB, help="Bytes of gathered output that are written at once.").tag(
        config=True
    )

    # --- peers
    peers = Int(1000, min=1, max=100_000, help="Peers connected to one kernel.").tag(config=True)
    outbox_messages = Int(
        1000, min=8, max=1_000_000, help="Messages waiting for one peer; beyond, it is closed and resyncs."
    ).tag(config=True)
    outbox_bytes = Int(
        8 * MiB, min=64 * KiB, max=1 << 31, help="Bytes waiting for one peer (the first sync is not counted)."
    ).tag(config=True)
    auth_bytes = Int(64 * KiB, min=KiB, max=MiB, help="Bytes of a request before it is authenticated.").tag(config=True)
    auth_s = Float(
        5.0, min=0.1, max=60.0, help="Seconds in which a connection must have asked for something valid."
    ).tag(config=True)
    message_bytes = Int(1 * MiB, min=KiB, max=64 * MiB, help="Bytes of one message from a peer.").tag(config=True)
    written_bytes = Int(
        16 * MiB, min=64 * KiB, max=256 * MiB, help="Bytes of one message from a peer that writes requests."
    ).tag(config=True)
    code_bytes = Int(
        MiB,
        min=KiB,
        max=64 * MiB,
        help="Bytes of the code of one request; and of an execution's code in the live document, which the history has "
        "whole.",
    ).tag(config=True)
    requests_per_peer = Int(
        1000, min=1, max=100_000, help="Requests of one peer that may wait; beyond, it is closed."
    ).tag(config=True)
    requests_after_crash = CaselessStrEnum(
        ["hold", "resume", "drop"],
        "hold",
        help="What becomes of requests that wait when the agent or the kernel starts again: held until somebody "
        "releases them, run, or dropped.",
    ).tag(config=True)
    ping_s = Float(
        20.0, min=0.5, max=300.0, help="Seconds between two signs of life to a peer; twice that closes it."
    ).tag(config=True)


def trait_names() -> list[str]:
    """The names of all settings, in the order of the class."""
    own = RTCKernel.class_own_traits(config=True)
    return [name for name in vars(RTCKernel) if name in own]


def split_argv(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """``(ours, others)``: settings of ours and every other argument, each in its order."""
    ours = [arg for arg in argv if arg.startswith(ARG_PREFIX)]
    return ours, [arg for arg in argv if not arg.startswith(ARG_PREFIX)]


def load(
    argv: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    path: Sequence[str] | None = None,
    problems: list[SetupError] | None = None,
) -> RTCKernel:
    """The settings in force.

    Args:
        argv: ``--RTCKernel.name=value`` arguments; others are ignored.
        environ: the environment (``os.environ`` unless given).
        path: directories searched for the configuration file, first wins (Jupyter's unless given).
        problems: where it is given, what does not fit is put there and left out instead of being raised: a kernel
            runs on without the setting.

    Raises:
        SetupError: a value that does not fit; the message names the setting and its place.
    """
    environ = os.environ if environ is None else environ
    if path is None:
        from jupyter_core.paths import jupyter_config_path

        path = jupyter_config_path()
    settings = RTCKernel()
    strict = problems is None
    found: list[SetupError] = [] if problems is None else problems
    for place, values in _layers(argv, environ, path, found):
        for name, value in values.items():
            try:
                _set(settings, name, value, place)
            except SetupError as exc:
                found.append(exc)
    if strict and found:
        raise found[0]
    return settings


def _layers(
    argv: Sequence[str], environ: Mapping[str, str], path: Sequence[str], problems: list[SetupError]
) -> list[tuple[str, dict[str, Any]]]:
    layers: list[tuple[str, dict[str, Any]]] = []
    for directory in reversed(path):
        for loader, suffix in ((JSONFileConfigLoader, ".json"), (PyFileConfigLoader, ".py")):
            file = Path(directory) / (CONFIG_NAME + suffix)
            if not file.is_file():
                continue
            try:
                found: Config = loader(file.name, path=str(file.parent)).load_config()
            except ConfigFileNotFound:
                continue
            except Exception as exc:  # the file is the user's code: it may raise anything
                problems.append(SetupError(f"{file} cannot be read ({type(exc).__name__}: {exc})", "mend or move it"))
                continue
            layers.append((str(file), dict(found.get("RTCKernel", {}))))
    names = {ENV_PREFIX + name.upper(): name for name in trait_names()}
    layers.extend(
        (variable, {name: DeferredConfigString(environ[variable])})
        for variable, name in names.items()
        if variable in environ
    )
    for arg in argv:
        if arg.startswith(ARG_PREFIX):
            name, _, text = arg.removeprefix(ARG_PREFIX).partition("=")
            if is_secret(name):
                what = f"{ARG_PREFIX}{name}=… is not taken: others can read a command line"
                problems.append(SetupError(what, f"set {ENV_PREFIX}{name.upper()}"))
                continue
            layers.append((arg, {name: DeferredConfigString(text)}))
    return layers


def _set(settings: RTCKernel, name: str, value: Any, place: str) -> None:
    trait = RTCKernel.class_own_traits(config=True).get(name)
    if trait is None:
        raise SetupError(f"there is no setting {name!r} ({place})", "`jupyter rtc --help-all` lists them")
    try:
        if isinstance(value, DeferredConfigString):
            value = _from_text(trait, str(value))
        setattr(settings, name, value)
    except (TraitError, ValueError) as exc:
        what = "not the type that it must be" if is_secret(name) else exc
        raise SetupError(f"{place}: {what}", f"give {name} as: {trait.help}") from None


def _from_text(trait: Any, text: str) -> Any:
    if isinstance(trait, List):
        return parse_words(text)
    if isinstance(trait, Bool) and text.lower() in ("yes", "on"):
        return True
    if isinstance(trait, Bool) and text.lower() in ("no", "off"):
        return False
    return trait.from_string(text)


def to_argv(settings: RTCKernel) -> list[str]:
    """The settings that differ from their defaults, as arguments that :func:`load` reads back; without secrets, which
    whoever is started so has from where we have them."""
    out = []
    for name in trait_names():
        if is_secret(name):
            continue
        value, trait = getattr(settings, name), RTCKernel.class_own_traits()[name]
        if value != trait.default(settings):
            out.append(f"{ARG_PREFIX}{name}={json.dumps(value) if isinstance(value, list) else value}")
    return out


def is_secret(name: str) -> bool:
    """Whether a setting's value is to be seen by nobody."""
    trait = RTCKernel.class_own_traits(config=True).get(name)
    return trait is not None and bool(trait.metadata.get("secret"))


def help_all() -> str:
    """Every setting with its type, default, unit and limit, as ``--help-all`` prints it."""
    lines = [
        "Settings (c.RTCKernel.NAME in jupyter_rtc_kernel_config.py, RTC_KERNEL_NAME, --RTCKernel.NAME=…)",
        "",
    ]
    for name in trait_names():
        trait = RTCKernel.class_own_traits()[name]
        kind = type(trait).__name__.removeprefix("Caseless").removesuffix("Enum")
        limits = [
            f"{word} {bound}"
            for word, bound in (("from", trait_bound(trait, "min")), ("to", trait_bound(trait, "max")))
            if bound is not None
        ]
        if hasattr(trait, "values"):
            limits = ["one of " + ", ".join(repr(value) for value in trait.values or ())]
        lines.append(f"  --RTCKernel.{name}=<{kind}>")
        lines.append(f"      default {trait.default(None)!r}" + (f"; {' '.join(limits)}" if limits else ""))
        lines.append(f"      {trait.help}")
    return "\n".join(lines)


def trait_bound(trait: Any, which: str) -> Any:
    """A number's ``min`` or ``max``; null where the setting has none."""
    return getattr(trait, which, None)


def history_directory(settings: RTCKernel) -> Path | None:
    """Where the histories are, a file per kernel; None: they are kept in memory only."""
    if settings.history == "memory":
        return None
    if settings.history_dir:
        return Path(settings.history_dir).expanduser()
    from jupyter_core.paths import jupyter_data_dir, jupyter_runtime_dir

    return Path(jupyter_runtime_dir() if settings.history == "runtime" else jupyter_data_dir()) / "rtc_kernel"
