"""What the masks of the validation set are like travels in the package, wherever its members come from."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from innereye_core.config import ModelConfig
from innereye_core.host import Host, installed_host
from innereye_core.model import (
    FINAL_ENSEMBLE_MODEL,
    Candidate,
    Member,
    MergedEnvironment,
    PackagedCheckpoint,
    PackagePlan,
    Run,
    ScoredCandidate,
    Selection,
)
from innereye_segmentation.validation_ranges import validation_range_files

WriteImage = Callable[..., Path]


def member(folder: Path, fold: str | None = None) -> Member:
    run = Run(folder.name, folder.name, folder, "local", fold=fold)
    candidate = Candidate(1, folder / "checkpoints" / "1_checkpoint.pth.tar", "innereye")
    selection = Selection("last", candidate, (ScoredCandidate(candidate),), evaluated=False)
    packaged = PackagedCheckpoint("1_checkpoint.pth.tar", "0" * 64, 1, 1, ())
    return Member(run, selection, f"checkpoints/{fold}/1_checkpoint.pth.tar", packaged)


@pytest.fixture
def plan(tiny_config: Callable[..., ModelConfig]) -> Callable[..., PackagePlan]:
    """The plan of a package of these members, with the structures ``organ`` and ``lesion``."""

    def make(*members: Member) -> PackagePlan:
        config = tiny_config(structures=("organ", "lesion"))
        return PackagePlan(
            FINAL_ENSEMBLE_MODEL, members[0].run, config, members, MergedEnvironment(""), (), None, files=()
        )

    return make


@pytest.fixture
def run_folder(tmp_path: Path, write_image: WriteImage) -> Callable[..., Path]:
    """A run whose validation subjects have an organ of so many voxels of 2 mm³, and no lesion."""

    def make(name: str = "run", **organs: int) -> Path:
        folder = tmp_path / name
        rows = ["subject,filePath,channel,split", "t,none.nii,ct,train"]
        for subject, voxels in organs.items():
            mask = np.zeros((3, 10, 10), np.uint8)
            mask[1].flat[:voxels] = 1
            for channel, content in (("ct", mask.astype(np.int16)), ("organ", mask), ("lesion", mask * 0)):
                write_image(folder / f"{subject}_{channel}.nii.gz", content, (1.0, 1.0, 2.0))
                rows.append(f"{subject},{subject}_{channel}.nii.gz,{channel},val")
        folder.mkdir(exist_ok=True)
        (folder / "dataset.csv").write_text("\n".join(rows) + "\n")
        return folder

    return make


def content(plan: PackagePlan) -> Any:
    (file,) = validation_range_files(plan, installed_host().image_formats())
    assert (file.path, file.role) == ("validation_ranges.json", "validation")
    assert file.content is not None
    return json.loads(file.content)


def test_every_mask_of_the_validation_set_is_measured(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path]
) -> None:
    none = {"volume_ml": 0.0, "components": 0}
    assert content(plan(member(run_folder(a=25, b=40)))) == {
        "schema_version": 1,
        "subjects": [
            {
                "subject": "a",
                "fold": None,
                "structures": {"organ": {"volume_ml": pytest.approx(0.05), "components": 1}, "lesion": none},
            },
            {
                "subject": "b",
                "fold": None,
                "structures": {"organ": {"volume_ml": pytest.approx(0.08), "components": 1}, "lesion": none},
            },
        ],
    }


def test_an_ensemble_has_the_subjects_of_all_its_folds(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path]
) -> None:
    found = content(plan(member(run_folder("0", a=25), "0"), member(run_folder("1", b=40), "1")))
    assert [(subject["fold"], subject["subject"]) for subject in found["subjects"]] == [("0", "a"), ("1", "b")]


def test_a_member_from_a_package_has_them_from_there(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    """Where folds were deployed elsewhere, only their packages are at hand."""
    (file,) = validation_range_files(plan(member(run_folder(a=25))), installed_host().image_formats())
    package = tmp_path / "final_model"
    package.mkdir()
    assert file.content is not None
    (package / file.path).write_bytes(file.content)
    found = content(plan(member(package, "0"), member(run_folder("1", b=40), "1")))
    assert [(subject["fold"], subject["subject"]) for subject in found["subjects"]] == [("0", "a"), ("1", "b")]


def test_without_a_dataset_there_is_no_file(plan: Callable[..., PackagePlan], tmp_path: Path) -> None:
    assert validation_range_files(plan(member(tmp_path)), installed_host().image_formats()) == []


def test_one_member_without_a_dataset_leaves_the_others(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path], tmp_path: Path
) -> None:
    found = content(plan(member(tmp_path / "nothing", "0"), member(run_folder("1", b=40), "1")))
    assert [subject["subject"] for subject in found["subjects"]] == ["b"]


def test_an_empty_validation_split_is_a_warning(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    assert validation_range_files(plan(member(run_folder())), installed_host().image_formats()) == []
    assert "empty validation split" in caplog.text


@pytest.mark.parametrize("damage", ["missing", "truncated"])
def test_a_mask_that_cannot_be_read_is_a_warning_and_leaves_the_other_subjects(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path], caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    folder = run_folder(a=25, b=40)
    path = folder / "a_organ.nii.gz"
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:50])
    assert [subject["subject"] for subject in content(plan(member(folder)))["subjects"]] == ["b"]
    (record,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "a_organ.nii.gz" in record.getMessage()


def test_the_hook_gives_the_file(
    plan: Callable[..., PackagePlan], run_folder: Callable[..., Path], providers: Host
) -> None:
    files = providers.package_files(plan(member(run_folder(a=25))))
    assert [file.path for file in files] == ["validation_ranges.json"]
