"""What is asked for, and what is the answer?

* ``magics``   %rtc lines -> commands; their help and completion       (pure)
* ``answers``  facts -> what a %rtc line shows, as text and as HTML     (pure)
"""
