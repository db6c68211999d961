"""What is asked for, and what is the answer?

``%rtc`` lines, from the kernel's own user:

* ``magics``     lines -> commands; their help and completion
* ``answers``    facts -> what a line shows, as text and as HTML

Rows of the ``requests`` document, from peers:

* ``rows``       is this row a request?
* ``scheduler``  when is what sent to the kernel? with ``ledger`` (what has become of each request), ``turns`` (whose
  row is next), ``runs`` (which executions are open) and ``commands`` (what is to be done)
* ``queries``    what was the kernel asked, and what did it answer?

All of it is pure.
"""
