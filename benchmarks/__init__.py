"""What RTC Python costs, next to the bare kernel: ``python -m benchmarks`` prints the table.

One module per question: ``executing``, ``starting``, ``following``, ``joining``, ``acting``, ``resting``. Each ratio
comes from interleaved runs (A B, B A, …), each figure is the median of its rounds. ``kernels`` starts kernels in a
private Jupyter home, ``observers`` starts the processes that watch (``observe``), ``writers`` those that write request
rows (``write``), ``figures`` compares. ``peers`` are other systems, measured with ``--peers``.
"""
