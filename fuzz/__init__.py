"""What happens on any bytes at all? One module per border over which somebody else's bytes come.

Each has ``SEEDS``, bytes that are worth changing, and ``run(data)``, which raises where the sentence in the module's
docstring does not hold. ``python -m fuzz NAME --seconds 60`` runs one, with atheris where it is installed and with a
loop of our own where it is not; ``tests/test_fuzz.py`` runs them all for a moment.
"""
