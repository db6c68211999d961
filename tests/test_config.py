"""config: four places, one order, and every limit holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from rtc_kernel import config
from rtc_kernel.errors import SetupError

NUMBERS = [
    (name, bound, value)
    for name in config.trait_names()
    for bound, value in (
        ("min", config.trait_bound(config.RTCKernel.class_own_traits()[name], "min")),
        ("max", config.trait_bound(config.RTCKernel.class_own_traits()[name], "max")),
    )
    if value is not None
]


def load(tmp_path: Path, *argv: str, **environ: str) -> config.RTCKernel:
    return config.load(argv, environ, [str(tmp_path)])


def test_later_places_win(tmp_path: Path) -> None:
    (tmp_path / "jupyter_rtc_kernel_config.py").write_text("c.RTCKernel.port = 1\nc.RTCKernel.peers = 1\n")
    (tmp_path / "jupyter_rtc_kernel_config.json").write_text('{"RTCKernel": {"ip": "::1", "peers": 9}}')
    settings = load(tmp_path, "--RTCKernel.port=3", "--other", RTC_KERNEL_PORT="2", RTC_KERNEL_SHARE="view")
    assert (settings.port, settings.peers, settings.ip, settings.share) == (3, 1, "::1", "view")


@pytest.mark.parametrize(("name", "bound", "value"), NUMBERS)
def test_every_limit_is_kept(tmp_path: Path, name: str, bound: str, value: float) -> None:
    load(tmp_path, f"--RTCKernel.{name}={value}")
    beyond = value - 1 if bound == "min" else value + 1
    with pytest.raises(SetupError, match=name):
        load(tmp_path, f"--RTCKernel.{name}={beyond}")


@pytest.mark.parametrize("name", config.trait_names())
def test_every_setting_has_help_with_a_full_stop_and_is_in_help_all(name: str) -> None:
    trait = config.RTCKernel.class_own_traits()[name]
    assert trait.help.endswith(".")
    assert f"--RTCKernel.{name}=" in config.help_all()


@pytest.mark.parametrize(
    ("argv", "environ", "words"),
    [
        (["--RTCKernel.prt=1"], {}, "no setting 'prt'"),
        (["--RTCKernel.port=x"], {}, "--RTCKernel.port=x"),
        ([], {"RTC_KERNEL_SHARE": "everybody"}, "RTC_KERNEL_SHARE"),
        ([], {"RTC_KERNEL_IPC_KERNELS": "[1"}, "RTC_KERNEL_IPC_KERNELS"),
        ([], {"RTC_KERNEL_PUBLIC_URL": "hub.example.org"}, "RTC_KERNEL_PUBLIC_URL"),
        (["--RTCKernel.public_url=https://ada:pw@hub.example.org"], {}, "no address of a server"),
        (["--RTCKernel.public_url=https://hub.example.org/?token=x"], {}, "no address of a server"),
        (["--RTCKernel.public_url=https://[hub"], {}, "no address of a server"),
    ],
)
def test_a_value_that_does_not_fit_is_one_line_that_names_its_place(
    tmp_path: Path, argv: list[str], environ: dict[str, str], words: str
) -> None:
    with pytest.raises(SetupError) as caught:
        load(tmp_path, *argv, **environ)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "jupyter_rtc_kernel_config.py").write_text("c.RTCKernel.port = 1/0")
    with pytest.raises(SetupError, match=r"jupyter_rtc_kernel_config\.py cannot be read"):
        load(tmp_path)


def test_settings_travel_as_arguments(tmp_path: Path) -> None:
    given = ["--RTCKernel.port=7", "--RTCKernel.magics=no", '--RTCKernel.allow_origins=["http://a:1", "http://b:2"]']
    settings = load(tmp_path, *given)
    again = load(tmp_path, *config.to_argv(settings))
    assert {name: getattr(again, name) for name in config.trait_names()} == {
        name: getattr(settings, name) for name in config.trait_names()
    }
    assert again.allow_origins == ["http://a:1", "http://b:2"]
    assert config.to_argv(load(tmp_path)) == []


def test_where_the_history_is(tmp_path: Path, home: Path) -> None:
    assert config.history_directory(load(tmp_path)) == home / "data" / "rtc_kernel"
    assert config.history_directory(load(tmp_path, RTC_KERNEL_HISTORY="runtime")) == home / "runtime" / "rtc_kernel"
    assert config.history_directory(load(tmp_path, RTC_KERNEL_HISTORY="memory")) is None
    assert config.history_directory(load(tmp_path, RTC_KERNEL_HISTORY_DIR="/x")) == Path("/x")


def test_a_secret_is_taken_from_the_environment_or_a_file_and_never_from_a_command_line(tmp_path: Path) -> None:
    problems: list[SetupError] = []
    settings = config.load(["--RTCKernel.relay_token=s3cret"], {}, [str(tmp_path)], problems)
    assert settings.relay_token == ""
    (problem,) = problems
    assert "s3cret" not in str(problem)
    assert "RTC_KERNEL_RELAY_TOKEN" in str(problem)
    settings = load(tmp_path, RTC_KERNEL_RELAY_TOKEN="s3cret")
    assert settings.relay_token == "s3cret"
    assert not [arg for arg in config.to_argv(settings) if "s3cret" in arg]
    (tmp_path / "jupyter_rtc_kernel_config.py").write_text("c.RTCKernel.relay_token = 53\n")
    with pytest.raises(SetupError) as caught:
        load(tmp_path)
    assert "53" not in str(caught.value)
