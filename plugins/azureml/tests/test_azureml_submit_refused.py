"""``innereye azureml submit``: what is refused without asking any workspace; and how a result gets its name."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from scoring_packages import NETS, refused, write_image, write_scoring_package

from innereye_core.cli.group import innereye
from innereye_core.cli.main import run
from innereye_core.errors import IntegrityError
from innereye_core.host import installed_host

Submit = Callable[..., Any]


@dataclass(frozen=True)
class Outcome:
    """What a command in this process did."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def package_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scoring_package(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("study")
    return [write_image(folder / f"{number}.nii.gz", number) for number in (1, 2)]


@pytest.fixture
def submit_nowhere(capfd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Submit:
    """Submit, in this process, where no workspace is named: only what needs none is found out."""
    for name in [name for name in os.environ if name.startswith(("AZUREML_", "INNEREYE_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Outcome:
        words = ["azureml", "submit", *map(str, arguments), "--compute", "gpu-cluster"]
        return Outcome(run(innereye, words, "innereye"), *capfd.readouterr())

    return call


def test_wrong_number_of_images(submit_nowhere, package_folder, study):
    refused(submit_nowhere(package_folder, study[0]), 3, "1 image(s) given", "ct, T2 weighted")


@pytest.mark.parametrize(
    ("name", "content"), [("missing.nii.gz", None), ("empty.nii.gz", b""), ("image.jpeg", b"\xff\xd8")]
)
def test_image_that_is_none(name, content, submit_nowhere, package_folder, study, tmp_path):
    if content is not None:
        (tmp_path / name).write_bytes(content)

    refused(submit_nowhere(package_folder, study[0], tmp_path / name), 3, name)


def test_impossible_name_of_an_experiment(submit_nowhere, package_folder, study):
    refused(submit_nowhere(package_folder, *study, "--experiment", "my scans"), 2, "'my scans'")


def test_changed_package(submit_nowhere, package_folder, study, tmp_path):
    copy = shutil.copytree(package_folder, tmp_path / "final_model")
    (copy / "ballnets" / "nets.py").write_text(NETS + "# changed\n")

    refused(submit_nowhere(copy, *study), 4, "ballnets/nets.py has changed")


def test_folder_for_the_segmentation_that_cannot_be_made(submit_nowhere, package_folder, study, tmp_path):
    (tmp_path / "file").touch()

    refused(submit_nowhere(package_folder, *study, "--download", "file/results"), 7, "file/results")


def test_no_workspace_is_named(submit_nowhere, package_folder, study):
    refused(submit_nowhere(package_folder, *study), 2, "which AzureML workspace?")


def test_damaged_segmentation_is_not_taken(study, tmp_path):
    from innereye_azureml.results import check_segmentation
    from innereye_imaging.formats import read_image

    formats = installed_host().image_formats()
    (tmp_path / "damaged.nii.gz").write_bytes(study[0].read_bytes()[:-20])

    with pytest.raises(IntegrityError, match="what the job wrote is no segmentation"):
        check_segmentation(tmp_path / "damaged.nii.gz", read_image(study[0], formats).grid, installed_host())


def test_segmentation_is_kept_on_a_file_system_without_hard_links(monkeypatch, tmp_path):
    from innereye_azureml.results import keep

    def no_links(source: Path, target: Path) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "segmentation.nii.gz").write_text("an earlier one")
    (tmp_path / "arrived").write_text("a new one")

    kept = keep(tmp_path / "arrived", tmp_path)

    assert kept == tmp_path / "segmentation_001.nii.gz"
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "segmentation.nii.gz": "an earlier one",
        "segmentation_001.nii.gz": "a new one",
    }
