"""Process 1: what Jupyter launches. Five channels in, five channels out, unchanged frames.

* ``launch``      the child is started, before anything else
* ``connection``  the two connection files: the front's and the child's
* ``transport``   over ipc or over TCP
* ``intercept``   a shell or control message -> pass, take or rewrite it (pure)
* ``spool``       what the agent has not stored yet, bounded (pure)
* ``channels``    the sockets: C proxies for iopub, stdin and heartbeat; the tap; the injection
* ``child``       the real kernel's life
* ``supervisor``  the agent's life, and the link to it
* ``app``         the hallway: one loop that wires them
* ``attached``    the relay's place at a kernel that somebody else has started; ``pulse``: whether that lives (pure)

Nothing here imports the agent, pycrdt or a web library, and nothing is imported before the child has been
started but what starting it needs.
"""
