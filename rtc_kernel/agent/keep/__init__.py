"""What stays? The history of one kernel as tables in one SQLite file.

* ``rows``     the tables, and how a value lies in a column          (pure)
* ``edit``     changes -> statements                                  (pure: over any connection)
* ``lookup``   statements -> records                                  (pure: over any connection)
* ``files``    a file is made, checked, moved aside                   (door)
* ``store``    the agent's file: one writer thread, reads beside it   (door)
* ``archive``  files of kernels that live or are dead, read-only      (door)
"""
