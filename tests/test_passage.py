"""The way through a Jupyter server: from a setting, from JupyterHub, or none."""

from __future__ import annotations

import pytest

from rtc_kernel.agent.serve.passage import Passage, find_passage

PREFIX = {"JUPYTERHUB_SERVICE_PREFIX": "/user/ada%40example.org/"}
TOLD = PREFIX | {"JUPYTERHUB_PUBLIC_URL": "https://hub.example/user/ada%40example.org/"}


@pytest.mark.parametrize(
    ("public_url", "environ", "has_proxy", "found"),
    [
        ("", {}, False, None),
        ("", {}, True, Passage("/", True)),
        ("", PREFIX, False, Passage("/user/ada%40example.org/", False)),
        ("", PREFIX, True, Passage("/user/ada%40example.org/", True)),
        ("", PREFIX | {"JUPYTERHUB_PUBLIC_URL": ""}, True, Passage("/user/ada%40example.org/", True)),
        ("", PREFIX | {"JUPYTERHUB_PUBLIC_URL": "javascript:1"}, True, Passage("/user/ada%40example.org/", True)),
        ("", TOLD, False, Passage("https://hub.example/user/ada%40example.org/", False)),
        ("", TOLD, True, Passage("https://hub.example/user/ada%40example.org/", True)),
        ("https://other.example", TOLD, False, Passage("https://other.example/user/ada%40example.org/", True)),
        ("https://other.example/", PREFIX, False, Passage("https://other.example/user/ada%40example.org/", True)),
        ("https://other.example/base", TOLD, False, Passage("https://other.example/base/", True)),
        ("http://lab.example:8888", {}, False, Passage("http://lab.example:8888/", True)),
    ],
)
def test_the_setting_goes_before_what_the_hub_tells(
    public_url: str, environ: dict[str, str], has_proxy: bool, found: Passage | None
) -> None:
    assert find_passage(public_url, environ, has_proxy=has_proxy) == found


def test_links_and_origin() -> None:
    passage = Passage("https://Hub.example:8443/user/ada/", is_sure=True)
    assert passage.link(37919, "a/b") == "https://Hub.example:8443/user/ada/proxy/37919/?token=a/b"
    assert passage.origin == "https://hub.example:8443"
    assert Passage("/user/ada/", is_sure=True).origin == ""
