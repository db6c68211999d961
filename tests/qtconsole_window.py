"""A program of another environment: Qt Console, its window unseen, played by lines on stdin.

Each line is a JSON object with one key, and is answered by a line: ``press``: keys or text, as a person types them;
``until``: a regular expression, until the console's text matches it; the answer is the text; ``close``: the window.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

from PyQt6.QtCore import Qt
from PyQt6.QtTest import QTest
from qtconsole.client import QtHBChannel
from qtconsole.qtconsoleapp import JupyterQtConsoleApp

READY_S = 60.0

KEYS = {
    "Tab": (Qt.Key.Key_Tab, Qt.KeyboardModifier.NoModifier),
    "Enter": (Qt.Key.Key_Return, Qt.KeyboardModifier.NoModifier),
    "Escape": (Qt.Key.Key_Escape, Qt.KeyboardModifier.NoModifier),
    "Control+C": (Qt.Key.Key_C, Qt.KeyboardModifier.ControlModifier),
    "Control+.": (Qt.Key.Key_Period, Qt.KeyboardModifier.ControlModifier),
}


class Window:
    """The console; ``text``: all that it shows, prompts included."""

    def __init__(self, options: list[str]) -> None:
        QtHBChannel.time_to_dead = READY_S  # a machine that is busy for 3 s is no dead kernel
        self.app = JupyterQtConsoleApp()
        self.app.initialize(options)
        self.app.window.show()
        self.widget = self.app.widget
        self.widget.confirm_restart = False

    @property
    def text(self) -> str:
        return str(self.widget._control.toPlainText())

    def press(self, keys: str) -> None:
        if keys in KEYS:
            QTest.keyClick(self.widget._control, *KEYS[keys])
        else:
            QTest.keyClicks(self.widget._control, keys)

    def until(self, pattern: str) -> str:
        deadline = time.monotonic() + READY_S
        while not re.search(pattern, self.text):
            if time.monotonic() > deadline:
                raise SystemExit(f"still not {pattern!r}:\n{self.text}")
            QTest.qWait(10)
        return self.text

    def close(self) -> None:
        self.app.window.close()
        QTest.qWait(0)


def main() -> None:
    window = Window(sys.argv[1:])
    for line in sys.stdin:
        ((action, value),) = json.loads(line).items()
        made: Any = getattr(window, action)(*([] if value is None else [value]))
        print(json.dumps(made), flush=True)
        if action == "close":
            break


if __name__ == "__main__":
    main()
