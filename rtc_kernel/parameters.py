"""How does ``-p NAME VALUE`` become a cell?

As papermill does it: the parameters are assigned in a new cell behind the one that is tagged ``parameters``, or at
the top where there is none; an earlier injected cell is replaced. Python is translated here, every other
language by papermill's translators where papermill is installed.
"""

from __future__ import annotations

import json
import keyword
import math
from collections.abc import Mapping
from typing import Any

import nbformat

from .errors import SetupError

TAG = "parameters"
INJECTED_TAG = "injected-parameters"

_WORDS = {"True": True, "False": False, "None": None}


def parse_value(text: str) -> Any:
    """A value from the command line: JSON or one of Python's three words where it is one, else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    try:
        return json.loads(text)
    except ValueError:
        return text


def inject(notebook: nbformat.NotebookNode, parameters: Mapping[str, Any], *, language: str, kernel: str) -> None:
    """Put the cell that assigns the parameters into a notebook (nbformat 4), in place.

    Args:
        language: of the kernelspec.
        kernel: name of the kernelspec behind ours; papermill knows some languages by it.

    Raises:
        SetupError: a name that is none, or a language or value that nobody translates.
    """
    cell = nbformat.v4.new_code_cell(translate(parameters, language=language, kernel=kernel))  # type: ignore[no-untyped-call]
    cell.metadata["tags"] = [INJECTED_TAG]
    if notebook.nbformat_minor < 5:
        cell.pop("id", None)
    injected, tagged = _find(notebook, INJECTED_TAG), _find(notebook, TAG)
    if injected is not None:
        notebook.cells[injected] = cell
    else:
        notebook.cells.insert(0 if tagged is None else tagged + 1, cell)


def _find(notebook: nbformat.NotebookNode, tag: str) -> int | None:
    return next((at for at, cell in enumerate(notebook.cells) if tag in cell.get("metadata", {}).get("tags", [])), None)


def translate(parameters: Mapping[str, Any], *, language: str, kernel: str) -> str:
    """The code that assigns the parameters.

    Raises:
        SetupError: see :func:`inject`.
    """
    for name in parameters:
        if not name.isidentifier():
            raise SetupError(f"{name!r} is no name for a parameter", "use letters, digits and '_'", 2)
    if language.lower() == "python":
        for name in parameters:
            if keyword.iskeyword(name):
                raise SetupError(f"{name!r} is a word of Python's own", "choose another parameter name", 2)
        return "# Parameters\n" + "".join(f"{name} = {_python(value)}\n" for name, value in parameters.items())
    try:
        from papermill.exceptions import PapermillException  # type: ignore[import-untyped]
        from papermill.translators import papermill_translators  # type: ignore[import-untyped]
    except ImportError:
        raise SetupError(f"parameters in {language} need papermill", "`pip install papermill`") from None
    try:
        translator = papermill_translators.find_translator(kernel, language)
        code: str = translator.codify(dict(parameters), "Parameters")
    except (PapermillException, NotImplementedError) as exc:
        raise SetupError(f"parameters cannot be written in {language} ({exc})", "assign them in a cell") from exc
    return code


def _python(value: Any) -> str:
    match value:
        case float() if not math.isfinite(value):
            return f"float('{value}')"
        case dict():
            return "{" + ", ".join(f"{key!r}: {_python(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(_python(item) for item in value) + "]"
        case _:
            return repr(value)
