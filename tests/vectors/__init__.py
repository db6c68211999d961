"""The test vectors of the Python side, all made by the package's own code. Shapes: README.md beside this.

* ``documents``, ``sessions``, ``frames``, ``histories``   the cases
* ``common``   ids and times that do not change, records
* ``files``    which files, and whether one is current
"""
