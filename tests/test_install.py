"""Facts about kernelspecs: what a wrapper copies, and what is refused."""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.kernelspec import KernelSpecManager

from rtc_kernel import install
from rtc_kernel.errors import SetupError
from rtc_kernel.install import Place

ROOT = Path(__file__).parents[1]


@pytest.fixture
def child(home: Path) -> Path:
    """An installed kernel of another language, with everything a spec may have."""
    directory = home / "data" / "kernels" / "other"
    directory.mkdir(parents=True)
    spec = {
        "argv": ["other", "{connection_file}"],
        "display_name": "Other 1.2.3 (some env)",
        "language": "other",
        "interrupt_mode": "message",
        "env": {"SECRET": "x"},
        "metadata": {"debugger": True, "kernel_provisioner": {"provisioner_name": "local-provisioner"}},
    }
    (directory / "kernel.json").write_text(json.dumps(spec))
    (directory / "logo-svg.svg").write_text("<svg/>")
    return directory


def spec_of(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((path / "kernel.json").read_text())
    return value


def test_a_wrapper_copies_what_a_frontend_reads_before_the_start(child: Path) -> None:
    made = install.install("other", place=Place(user=True))
    assert (made.name, made.display_name, made.kernel) == ("rtc-other", "RTC Other 1.2", "other")
    value = spec_of(made.path)
    assert value["argv"] == [sys.executable, "-m", "rtc_kernel", "--kernel", "other", "-f", "{connection_file}"]
    assert value["language"] == "other"
    assert value["interrupt_mode"] == "message"
    assert value["metadata"] == {"debugger": True, "supported_encryption": ["curve"]}
    assert value["kernel_protocol_version"] == "5.5"
    assert "env" not in value  # the relay starts the child with the child's own spec
    assert (made.path / "logo-svg.svg").read_text() == "<svg/>"
    assert KernelSpecManager().get_kernel_spec("rtc-other").display_name == "RTC Other 1.2"
    assert [spec.name for spec in install.wrappers() if spec.kernel] == ["rtc-other"]
    assert install.wrapper_for("other") == "rtc-other"


def test_a_wrapper_may_have_another_name_and_place(child: Path, tmp_path: Path) -> None:
    place = Place(prefix=str(tmp_path / "p"))
    made = install.install("other", name="Mine", display_name="My Own", place=place)
    assert made.path == tmp_path / "p" / "share" / "jupyter" / "kernels" / "mine"
    assert spec_of(made.path)["display_name"] == "My Own"
    assert install.uninstall("mine", place=place) == made.path
    assert list(made.path.parent.iterdir()) == []


def test_installing_again_replaces_what_was_there(child: Path) -> None:
    made = install.install("other", place=Place(user=True))
    (made.path / "left-over").write_text("")
    install.install("other", display_name="Second", place=Place(user=True))
    assert spec_of(made.path)["display_name"] == "Second"
    assert sorted(path.name for path in made.path.iterdir()) == ["kernel.json", "logo-svg.svg"]


def test_without_a_kernel_rtc_python_is_installed_as_the_wheel_does(tmp_path: Path) -> None:
    made = install.install(place=Place(prefix=str(tmp_path)))
    shipped = spec_of(ROOT / "kernelspec")
    written = spec_of(made.path)
    assert made.name == "rtc-python"
    assert written.pop("argv")[1:] == shipped.pop("argv")[1:]
    assert written == shipped
    assert {path.name for path in made.path.iterdir()} == {path.name for path in (ROOT / "kernelspec").iterdir()}


@pytest.mark.parametrize(("size", "name"), [(32, "logo-32x32.png"), (64, "logo-64x64.png")])
def test_the_logos_have_the_sizes_that_frontends_expect(size: int, name: str) -> None:
    data = (ROOT / "kernelspec" / name).read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (size, size)


def test_wrapping_a_wrapper_is_refused(child: Path) -> None:
    install.install("other", place=Place(user=True))
    for name in ("rtc-other", "rtc-python"):
        with pytest.raises(SetupError, match="is an RTC kernel already") as caught:
            install.install(name, place=Place(user=True))
        assert caught.value.exit_code == 2


def test_an_unknown_kernel_is_told_with_those_that_are_known(child: Path) -> None:
    with pytest.raises(SetupError, match=r"no kernelspec 'nope' is installed: known are: .*other.*python3"):
        install.install("nope")


@pytest.mark.parametrize("name", ["a b", "../x", "é"])
def test_a_name_that_is_none_is_refused(child: Path, name: str) -> None:
    with pytest.raises(SetupError, match="is no name"):
        install.install("other", name=name, place=Place(user=True))


def test_what_is_not_ours_is_neither_replaced_nor_removed(child: Path) -> None:
    with pytest.raises(SetupError, match="not ours"):
        install.install("other", name="other", place=Place(user=True))
    with pytest.raises(SetupError, match="not ours"):
        install.uninstall("other")
    with pytest.raises(SetupError, match="no RTC kernelspec"):
        install.uninstall("nope")
    assert child.exists()


def test_a_wrapper_is_removed_by_its_own_or_its_kernel_s_name(child: Path) -> None:
    for name in ("rtc-other", "other"):
        made = install.install("other", place=Place(user=True))
        assert install.uninstall(name) == made.path
        assert not made.path.exists()


def test_a_place_that_is_a_file_is_told(child: Path, tmp_path: Path) -> None:
    (tmp_path / "share").write_text("")
    with pytest.raises(SetupError, match="--user or --prefix"):
        install.install("other", place=Place(prefix=str(tmp_path)))


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("Python 3 (ipykernel)", "Python 3"),
        ("R", "R"),
        ("Julia 1.11.2", "Julia 1.11"),
        ("Bash [conda env:x]", "Bash"),
        ("(odd)", "(odd)"),
        ("", ""),
    ],
)
def test_a_display_name_is_shortened(long: str, short: str) -> None:
    assert install.short_name(long) == short


@pytest.mark.parametrize(
    ("argv", "ours"),
    [
        (["python", "-m", "rtc_kernel", "-f", "{connection_file}"], True),
        (["python", "-m", "rtc_kernel.relay", "-f", "x"], True),
        (["python", "-m", "ipykernel_launcher", "-f", "rtc_kernel"], False),
        (["R", "--slave"], False),
        ([], False),
    ],
)
def test_our_specs_are_known_by_what_they_start(argv: list[str], ours: bool) -> None:
    assert install.is_ours(argv) is ours
