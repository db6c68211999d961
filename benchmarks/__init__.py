"""What RTC Python costs, next to the bare kernel: ``python -m benchmarks`` prints the table.

One module per question: ``executing``, ``starting``, ``following``, ``joining``, ``acting``, ``bounding``,
``crowding``, ``resting``; ``soak`` is a command of its own. Each ratio comes from interleaved runs (A B, B A, …),
each figure is the median of its rounds. ``kernels`` starts kernels in a private Jupyter home, ``observers`` starts
the processes that watch (``observe``), ``crowd`` is one that is many peers, ``writers`` starts those that write
request rows (``write``), ``figures`` compares. ``peers`` are other systems, measured with ``--peers``.
"""
