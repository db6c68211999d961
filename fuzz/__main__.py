"""``python -m fuzz NAME [--seconds N] [--corpus DIRECTORY] [--plain]``, from the root of the repository.

With atheris (``pip install atheris``) the bytes are chosen by what they reach; without it, or with ``--plain``, seeds
are changed at random. What breaks a target is written to ``fuzz-NAME-….bin`` here; ``--replay FILE`` runs it again.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import logging
import random
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

TARGETS = ("wire", "messages", "rows", "urls", "stores", "relays")
MOST_BYTES = 4096
ODD = (
    b"",
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80" * 9,
    b"%00",
    b"../",
    b"NaN",
    b"\xed\xa0\x80",
    b"-1",
    b"\x1f\x8b",
)


def main() -> int:
    """0: nothing broke; 1: something did."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--corpus", type=Path, help="keep what atheris found worth changing (default: not)")
    parser.add_argument("--plain", action="store_true", help="without atheris, though it is there")
    parser.add_argument("--seed", type=int, default=0, help="of the random changes, without atheris")
    parser.add_argument("--replay", type=Path, help="run this file once")
    options = parser.parse_args()
    logging.getLogger("rtc_kernel").setLevel(logging.CRITICAL)  # a warning for each damaged file would be all we see
    if options.replay:
        load(options.name).run(options.replay.read_bytes())
        return 0
    try:
        if options.plain:
            raise ImportError
        import atheris
    except ImportError:
        return loop(options.name, options.seconds, options.seed)
    with atheris.instrument_imports(include=["rtc_kernel", "fuzz"]):
        target = load(options.name)
    corpus = options.corpus or Path(tempfile.mkdtemp(prefix="rtc-fuzz-corpus-"))
    corpus.mkdir(exist_ok=True)
    for seed in target.SEEDS:
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    flags = [
        f"-max_total_time={options.seconds:.0f}",
        f"-max_len={MOST_BYTES}",
        f"-artifact_prefix=fuzz-{options.name}-",
    ]
    atheris.Setup([sys.argv[0], *flags, str(corpus)], target.run)
    atheris.Fuzz()  # ends the process
    return 0


def load(name: str) -> ModuleType:
    """A target's module: ``SEEDS`` and ``run``."""
    return importlib.import_module(f"fuzz.{name}")


def loop(name: str, seconds: float, seed: int) -> int:
    """Change seeds at random until the time is over or something breaks."""
    target, chosen = load(name), random.Random(seed)
    deadline, count = time.monotonic() + seconds, 0
    for data in changed(target.SEEDS, chosen):
        if not survives(target.run, data):
            found = Path(f"fuzz-{name}-{hashlib.sha256(data).hexdigest()[:16]}.bin")
            found.write_bytes(data)
            print(f"after {count} runs: {found} breaks {name}", file=sys.stderr)
            return 1
        count += 1
        if time.monotonic() > deadline:
            break
    print(f"{name}: {count} runs in {seconds:.0f} s, nothing broke")
    return 0


def survives(run: Callable[[bytes], None], data: bytes) -> bool:
    """Whether the target's sentence holds; if not the traceback is printed."""
    try:
        run(data)
    except BaseException as exc:  # a panic of pycrdt is none of Exception's
        if isinstance(exc, KeyboardInterrupt):
            raise
        traceback.print_exc()
        return False
    return True


def changed(seeds: Sequence[bytes], chosen: random.Random) -> Iterator[bytes]:
    """The seeds, and then without end what random changes make of them."""
    yield from seeds
    while True:
        data = bytearray(chosen.choice(seeds))
        for _ in range(chosen.choice((1, 1, 2, 3, 8))):
            at, to = sorted(chosen.randrange(len(data) + 1) for _ in range(2))
            match chosen.randrange(7):
                case 0 if data:
                    data[at % len(data)] ^= 1 << chosen.randrange(8)
                case 1 if data:
                    data[at % len(data)] = chosen.randrange(256)
                case 2:
                    del data[at:to]
                case 3:
                    data[at:at] = data[at:to]
                case 4:
                    data[at:at] = chosen.choice(ODD)
                case 5:
                    other = chosen.choice(seeds)
                    data[at:to] = other[min(at, len(other)) : to]
                case _:
                    data[at:at] = chosen.randbytes(chosen.randrange(1, 9))
        yield bytes(data[:MOST_BYTES])


if __name__ == "__main__":
    sys.exit(main())
