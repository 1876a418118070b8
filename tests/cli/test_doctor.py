from __future__ import annotations

import json

import pytest
import torchvision
from typer.testing import CliRunner

from pathclip.cli import doctor
from pathclip.cli.__main__ import app


def test_a_sound_installation_is_all_well() -> None:
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == "all well"
    for word in ("torch", "openslide", "disk here", "[ray]", "tiny-vit-112 encodes a picture and a text"):
        assert word in result.stdout


def test_a_torchvision_that_does_not_fit_is_a_fault_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("operator torchvision::nms does not exist\nand more")

    monkeypatch.setattr(torchvision.ops, "nms", broken)
    result = CliRunner().invoke(app, ["doctor", "--json"])
    data = json.loads(result.stdout)
    assert (result.exit_code, data["ok"]) == (1, False)
    (fault,) = [finding for finding in data["findings"] if finding["state"] == "fault"]
    assert fault["name"] == "torch"
    assert "do not fit (operator torchvision::nms does not exist); reinstall both" in fault["detail"]


def test_a_package_that_is_missing_or_broken_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "PACKAGES", {"no_such_module": "no-such-package"})
    (found,) = doctor.packages()
    assert found.state == "fault"
    assert "ModuleNotFoundError" in found.detail
    assert "pip install --force-reinstall no-such-package" in found.detail


def test_a_check_that_fails_is_itself_a_fault_and_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def openslide() -> list[doctor.Finding]:
        raise OSError("libopenslide.so.1: cannot open shared object file\nmore")

    monkeypatch.setattr(doctor, "CHECKS", (openslide, doctor.python))
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    assert "OSError: libopenslide.so.1: cannot open shared object file" in result.stdout
    assert "python" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 faults"


def test_gpus_are_listed_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    class Properties:
        name, total_memory = "NVIDIA H100", 80 * 1024**3

    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: Properties())
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda: True)
    assert [(f.name, f.state, f.detail) for f in doctor.gpu()] == [
        ("gpu 0", "ok", "NVIDIA H100, 80 GiB, bf16"),
        ("gpu 1", "ok", "NVIDIA H100, 80 GiB, bf16"),
    ]


def test_little_disk_is_a_note_and_absent_extras_name_their_install_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(doctor, "LOW_DISK_BYTES", 2**70)
    assert {finding.state for finding in doctor.disk()} == {"note"}
    monkeypatch.setattr(doctor, "EXTRAS", {"ray": "no_such_module"})
    (found,) = doctor.extras()
    assert (found.state, found.detail) == ("note", "absent; pip install 'pathclip[ray]'")
