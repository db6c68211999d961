"""What stays? The history of one kernel as tables in one SQLite file.

* ``rows``       the tables, and how a value lies in a column          (pure)
* ``edit``       changes -> statements                                  (pure: over any connection)
* ``lookup``     statements -> records                                  (pure: over any connection)
* ``retention``  facts about rows -> which leave                        (pure)
* ``upkeep``     what leaves and what belonged to it, in small steps    (pure: over any connection)
* ``files``      a file is made, checked, moved aside                   (door)
* ``store``      the agent's file: one writer thread, reads beside it   (door)
* ``archive``    files of kernels that live or are dead, read-only      (door)
* ``dead``       files of kernels that are dead, pruned and removed     (door)
"""
