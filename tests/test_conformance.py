"""The suite that Jupyter gives to kernel authors, on RTC Python as on ipykernel."""

from __future__ import annotations

from kernel_suite import KernelTests


class IPykernelTests(KernelTests):
    """What the suite asks of ipykernel; run for both kernel names."""

    __test__ = False
    language_name = "python"
    file_extension = ".py"
    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    code_execute_result = [{"code": "6*7", "result": "42"}, {"code": "'a' + 'b'", "result": "'ab'"}]
    code_display_data = [
        {"code": "from IPython.display import HTML, display; display(HTML('<b>t</b>'))", "mime": "text/html"},
        {"code": "from IPython.display import Math, display; display(Math('\\\\frac{1}{2}'))", "mime": "text/latex"},
    ]
    code_generate_error = "raise ValueError('x')"
    code_page_something = "zip?"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"
    completion_samples = [{"text": "zi", "matches": {"zip"}}, {"text": "pri", "matches": {"print"}}]
    complete_code_samples = ["1", "print('hello, world')", "def f(x):\n  return x*2\n\n\n"]
    incomplete_code_samples = ["print('''hello", "def f(x):\n  x*2"]
    invalid_code_samples = ["import = 7q"]
    test_history = None  # fails for the bare kernel too (IPython 9.18); test_relay compares the replies


class TestRTCPython(IPykernelTests):
    __test__ = True
    kernel_name = "rtc-python"


class TestBareIPykernel(IPykernelTests):
    __test__ = True
    kernel_name = "python3"
