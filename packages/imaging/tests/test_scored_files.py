"""Everything that scoring can write beside the segmentation: what is in it, and what is refused before any work."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from PIL import Image as Picture

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError, IntegrityError, UsageError
from innereye_core.model import ModelFiles, ScoreRequest, ScoreResult
from innereye_core.progress import Silent
from innereye_imaging.review import RANGES_FILE, Extent, ValidationRanges, ValidationSubject, validation_ranges_bytes
from innereye_imaging.score_outputs import structure_file_names
from innereye_imaging.scorer import ImageScorer
from innereye_imaging.uncertainty import normalized_disagreement, normalized_entropy

Score = Callable[..., ScoreResult]

RANDOM = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
LPS_HALF_MM = np.diag([-0.5, -0.5, 2.0, 1.0])


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    return write_nifti(RANDOM, LPS_HALF_MM)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """An empty folder."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def runtime(installed: Any, numpy_runtime: Any, numpy_network: Any, identity: Any) -> Any:
    installed.available_runtimes.append(numpy_runtime([numpy_network(identity)]))
    return installed.available_runtimes[0]


@pytest.fixture
def score(image: Path, out: Path, make_config: Callable[..., ModelConfig], installed: Any, runtime: Any) -> Score:
    """Score the image; keyword arguments ask for more."""

    def run(
        config: ModelConfig | None = None, checkpoints: int = 1, folder: Path | None = None, **others: Any
    ) -> ScoreResult:
        names = tuple(Path(f"{fold}.pth.tar") for fold in range(checkpoints))
        parts = {"images": (image,), "output": out / "segmentation.nii.gz", **others}
        model = ModelFiles(config or make_config(), names, folder=folder)
        return ImageScorer().score(ScoreRequest(model=model, model_name="Test:1", **parts), installed, Silent())

    return run


def voxels(path: Path) -> np.ndarray:
    """Voxels (z, y, x), read by nibabel alone."""
    return np.asanyarray(nib.load(path).dataobj).T


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is written --------------------------------------------------------------------------------------------------


def test_all_of_it_at_once(score: Score, out: Path) -> None:
    result = score(
        posteriors=out / "p.nii.gz",
        uncertainty=out / "u.nii.gz",
        statistics=(out / "s.json", out / "s.csv"),
        preview=out / "p.png",
        report=out / "r.html",
    )
    assert names(out) == ["p.nii.gz", "p.png", "r.html", "s.csv", "s.json", "segmentation.nii.gz", "u.nii.gz"]
    assert (result.uncertainty, result.disagreement, result.preview) == (out / "u.nii.gz", None, out / "p.png")
    assert (result.statistics, result.report) == ((out / "s.json", out / "s.csv"), out / "r.html")


def test_only_the_segmentation_if_nothing_else_is_asked_for(score: Score, out: Path) -> None:
    result = score()
    assert names(out) == ["segmentation.nii.gz"]
    assert (result.uncertainty, result.disagreement, result.statistics, result.preview) == (None, None, (), None)


@pytest.mark.parametrize("there", [True, False])
def test_posteriors_in_a_folder_are_a_file_per_structure(
    score: Score, out: Path, make_config: Any, runtime: Any, numpy_network: Any, there: bool
) -> None:
    shares = np.array([0.2, 0.3, 0.5], np.float32).reshape(1, 3, 1, 1, 1)
    runtime.networks = [numpy_network(lambda patches: shares * np.ones_like(patches))]
    folder = out / "posteriors"
    if there:
        folder.mkdir()
    result = score(make_config(structures=("left lung", "heart")), posteriors_folder=folder)
    assert result.posteriors == folder
    assert names(folder) == ["heart.nii.gz", "left_lung.nii.gz"]
    assert names(out) == ["posteriors", "segmentation.nii.gz"]
    for name, share in (("left_lung", 0.3), ("heart", 0.5)):
        found = nib.load(folder / f"{name}.nii.gz")
        assert found.get_data_dtype() == np.float32
        np.testing.assert_allclose(found.affine, LPS_HALF_MM)
        np.testing.assert_allclose(voxels(folder / f"{name}.nii.gz"), np.full(RANDOM.shape, share), atol=1e-6)


@pytest.mark.parametrize(
    ("structures", "expected"),
    [
        (["prostate", "bladder"], ["prostate", "bladder"]),
        (["Größe 1"], ["Größe_1"]),
        (["a:b", "a*b", "a?b"], ["a_b", "a_b_2", "a_b_3"]),
        (["Lung", "lung", "lung_2"], ["Lung", "lung_2", "lung_2_3"]),
        (["..", ".hidden", "-rf"], ["_.", "_hidden", "_rf"]),
        (["x" * 255, "x" * 254 + "y"], ["x" * 60, "x" * 60 + "_2"]),
    ],
)
def test_file_names_of_structures_are_safe_and_never_the_same(structures: list[str], expected: list[str]) -> None:
    assert structure_file_names(structures) == [f"{name}.nii.gz" for name in expected]


def test_uncertainty_of_one_network_is_the_entropy_alone(score: Score, out: Path) -> None:
    score(uncertainty=out / "u.nii.gz")
    assert names(out) == ["segmentation.nii.gz", "u.nii.gz"]
    found = nib.load(out / "u.nii.gz")
    assert (found.shape, found.get_data_dtype()) == ((8, 7, 6), np.float32)
    np.testing.assert_allclose(found.affine, LPS_HALF_MM)
    np.testing.assert_allclose(voxels(out / "u.nii.gz"), normalized_entropy(np.stack([1 - RANDOM, RANDOM])), atol=1e-5)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".nrrd", ".mha"])
def test_uncertainty_of_an_ensemble_has_the_members_disagreement_beside_it(
    score: Score, out: Path, runtime: Any, numpy_network: Any, identity: Any, suffix: str
) -> None:
    runtime.networks = [numpy_network(identity), numpy_network(lambda patches: identity(patches**3))]
    result = score(checkpoints=2, uncertainty=out / f"u{suffix}")
    assert result.disagreement == out / f"u_disagreement{suffix}"
    members = np.stack([[1 - RANDOM, RANDOM], [1 - RANDOM**3, RANDOM**3]])
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(result.disagreement)))
    np.testing.assert_allclose(found, normalized_disagreement(members), atol=1e-5)


def test_statistics_are_of_the_segmentation_that_is_written_and_of_the_image_as_it_is_stored(
    score: Score, out: Path
) -> None:
    score(statistics=(out / "s.json", out / "s.csv"))
    organ = json.loads((out / "s.json").read_text())["structures"]["organ"]
    found = voxels(out / "segmentation.nii.gz") == 1
    assert organ["voxels"] == found.sum()
    assert organ["volume_ml"] == pytest.approx(found.sum() * 0.5 / 1000)
    assert organ["mean_intensity"]["ct"] == pytest.approx(RANDOM[found].mean())
    with (out / "s.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["mean_ct"]) == organ["mean_intensity"]["ct"]


def test_means_are_of_stored_values_also_where_the_network_sees_another_grid(
    score: Score, out: Path, make_config: Any
) -> None:
    settings = {"orientation": "RAS", "spacing_xyz_mm": (1.0, 1.0, 1.0), "on_mismatch": "resample"}
    score(make_config(input=settings), statistics=(out / "s.json",))
    organ = json.loads((out / "s.json").read_text())["structures"]["organ"]
    found = voxels(out / "segmentation.nii.gz") == 1
    assert organ["voxels"] == found.sum()
    assert organ["mean_intensity"]["ct"] == pytest.approx(RANDOM[found].mean())


def test_means_of_every_channel(score: Score, out: Path, make_config: Any, write_nifti: Any, image: Path) -> None:
    other = write_nifti(RANDOM * 100, LPS_HALF_MM, "pet.nii")
    score(make_config(channels=("ct", "pet")), images=(image, other), statistics=(out / "s.json",))
    means = json.loads((out / "s.json").read_text())["structures"]["organ"]["mean_intensity"]
    assert means["pet"] == pytest.approx(100 * means["ct"], rel=1e-5)


def test_the_preview_is_a_picture(score: Score, out: Path) -> None:
    score(preview=out / "p.png")
    picture = Picture.open(out / "p.png")
    assert picture.format == "PNG"
    assert picture.width > 1000


def test_the_report_has_what_the_other_files_have(score: Score, out: Path, tmp_path: Path) -> None:
    result = score(report=out / "r.html", images=(tmp_path / "image.nii.gz",))
    text = (out / "r.html").read_text(encoding="utf-8")
    assert f"{result.structures['organ'].volume_ml:.2f}" in text
    assert str(tmp_path / "image.nii.gz") in text
    assert all(check.detail in text for check in result.checks if check.name == "channels")
    assert "data:image/png;base64," in text


# --- small and empty images -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("found", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 1, 1), (6, 7, 8)])
def test_everything_works_on_images_of_any_size_whether_or_not_anything_is_found(
    score: Score, out: Path, runtime: Any, numpy_network: Any, write_nifti: Any, shape: Any, found: bool
) -> None:
    share = np.array([0, 1] if found else [1, 0], np.float32).reshape(1, 2, 1, 1, 1)
    runtime.networks = [numpy_network(lambda patches: share * np.ones_like(patches)) for _ in range(2)]
    small = write_nifti(np.arange(np.prod(shape)).reshape(shape).astype(np.float32), name="small.nii")
    result = score(
        checkpoints=2,
        images=(small,),
        posteriors_folder=out / "posteriors",
        uncertainty=out / "u.nii",
        statistics=(out / "s.json", out / "s.csv"),
        preview=out / "p.png",
        report=out / "r.html",
    )
    assert result.structures["organ"].voxels == (np.prod(shape) if found else 0)
    assert voxels(out / "u.nii").shape == shape
    assert not voxels(out / "u.nii").any()
    assert len(names(out)) == 8


# --- review -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(tmp_path: Path) -> Callable[[float], Path]:
    """A model folder whose validation set had so many millilitres."""

    def make(volume_ml: float) -> Path:
        folder = tmp_path / "package"
        folder.mkdir(exist_ok=True)
        subject = ValidationSubject("p1", None, {"organ": Extent(volume_ml, 6)})
        (folder / RANGES_FILE).write_bytes(validation_ranges_bytes(ValidationRanges((subject,))))
        return folder

    return make


def test_what_is_unlike_the_validation_set_is_in_the_result_and_in_the_report(
    score: Score, out: Path, package: Any
) -> None:
    result = score(folder=package(70.0), report=out / "r.html")
    (line,) = result.review
    assert line.endswith("ml, but 1 subject in the validation set had 70 ml")
    assert result.checks[-1].outcome == "warning"
    assert line in (out / "r.html").read_text(encoding="utf-8")


def test_what_is_like_the_validation_set_passes(score: Score, package: Any) -> None:
    result = score(folder=package(0.1))
    assert result.review == ()
    assert (result.checks[-1].name, result.checks[-1].outcome) == ("review", "passed")


def test_a_model_that_knows_nothing_of_its_validation_set_says_so(score: Score, tmp_path: Path) -> None:
    for folder in (None, tmp_path):
        check = score(folder=folder, overwrite=True).checks[-1]
        assert (check.name, check.outcome) == ("review", "unchecked")


def test_damaged_ranges_are_refused_before_anything_is_loaded(score: Score, tmp_path: Path, runtime: Any) -> None:
    (tmp_path / RANGES_FILE).write_text("{}")
    with pytest.raises(IntegrityError, match=r"validation_ranges\.json"):
        score(folder=tmp_path)
    assert runtime.loaded_on == []


# --- what is refused --------------------------------------------------------------------------------------------------

EVERY_OUTPUT = {
    "posteriors": "p.nii.gz",
    "posteriors_folder": "posteriors",
    "uncertainty": "u.nii.gz",
    "statistics": "s.json",
    "preview": "p.png",
    "report": "r.html",
}


def argument(kind: str, path: Path) -> dict[str, Any]:
    return {kind: (path,) if kind == "statistics" else path}


@pytest.mark.parametrize("kind", EVERY_OUTPUT)
@pytest.mark.parametrize("replace_segmentation", [False, True])
def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(
    score: Score, out: Path, runtime: Any, kind: str, replace_segmentation: bool
) -> None:
    path = out / EVERY_OUTPUT[kind]
    existing = path / "organ.nii.gz" if kind == "posteriors_folder" else path
    existing.parent.mkdir(exist_ok=True)
    existing.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"exists already; .* --overwrite"):
        score(**argument(kind, path), replace_segmentation=replace_segmentation)
    assert existing.read_bytes() == b"precious"
    assert runtime.loaded_on == []
    score(**argument(kind, path), overwrite=True)
    assert existing.read_bytes() != b"precious"


def test_the_disagreement_of_an_ensemble_is_not_overwritten_either(
    score: Score, out: Path, runtime: Any, numpy_network: Any, identity: Any
) -> None:
    runtime.networks = [numpy_network(identity)] * 2
    (out / "u_disagreement.nii.gz").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"u_disagreement\.nii\.gz exists already"):
        score(checkpoints=2, uncertainty=out / "u.nii.gz")


def test_replacing_the_segmentation_alone(score: Score, out: Path) -> None:
    (out / "segmentation.nii.gz").write_bytes(b"older")
    score(replace_segmentation=True)
    assert voxels(out / "segmentation.nii.gz").shape == RANDOM.shape


@pytest.mark.parametrize("kind", EVERY_OUTPUT)
def test_a_folder_that_does_not_exist_is_refused(score: Score, out: Path, runtime: Any, kind: str) -> None:
    with pytest.raises(InputError, match=r"Folder .*nowhere does not exist"):
        score(**argument(kind, out / "nowhere" / EVERY_OUTPUT[kind]))
    assert (names(out), runtime.loaded_on) == ([], [])


@pytest.mark.parametrize(
    ("kind", "name", "problem"),
    [
        ("posteriors", "p.png", "no installed image format"),
        ("uncertainty", "u.txt", "no installed image format"),
        ("statistics", "s.txt", r"must end in \.json or \.csv"),
        ("statistics", "json", r"must end in \.json or \.csv"),
        ("preview", "p.jpg", r"must end in \.png"),
        ("report", "r.pdf", r"must end in \.html or \.htm"),
    ],
)
def test_an_ending_that_says_something_else_is_refused(
    score: Score, out: Path, runtime: Any, kind: str, name: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        score(**argument(kind, out / name))
    assert (names(out), runtime.loaded_on) == ([], [])


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({"uncertainty": "segmentation.nii.gz"}, "Segmentation and uncertainty would both be written"),
        ({"posteriors": "u.nii", "uncertainty": "u.nii"}, "Posteriors and uncertainty would both be written"),
        ({"statistics": ("s.json", "s.json")}, "Statistics and statistics would both be written"),
        ({"posteriors_folder": ".", "uncertainty": "organ.nii.gz"}, "Posteriors and uncertainty would both be"),
    ],
)
def test_two_outputs_in_one_file_are_refused(
    score: Score, out: Path, runtime: Any, others: dict[str, Any], problem: str
) -> None:
    places = {
        kind: tuple(out / name for name in value) if isinstance(value, tuple) else out / value
        for kind, value in others.items()
    }
    with pytest.raises(UsageError, match=problem):
        score(**places)
    assert (names(out), runtime.loaded_on) == ([], [])


@pytest.mark.parametrize("which", ["image", "mask"])
def test_no_output_replaces_an_input(score: Score, image: Path, write_nifti: Any, which: str) -> None:
    mask = write_nifti((RANDOM > 0.5).astype(np.uint8), LPS_HALF_MM, "mask.nii.gz")
    path = image if which == "image" else mask
    before = path.read_bytes()
    with pytest.raises(UsageError, match="is also an input image"):
        score(mask=mask, uncertainty=path, overwrite=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("there", [True, False])
def test_if_one_file_cannot_be_written_none_appears(
    score: Score, out: Path, runtime: Any, numpy_network: Any, identity: Any, there: bool
) -> None:
    """Somebody else writes a report of the same name while the network is evaluated."""

    def slow(patches: np.ndarray) -> np.ndarray:
        (out / "r.html").write_bytes(b"somebody else's")
        scores: np.ndarray = identity(patches)
        return scores

    runtime.networks = [numpy_network(slow)]
    if there:
        (out / "segmentation.nii.gz").write_bytes(b"older")
    with pytest.raises(InputError, match=r"r\.html exists already"):
        score(
            posteriors_folder=out / "posteriors",
            preview=out / "p.png",
            report=out / "r.html",
            replace_segmentation=True,
        )
    assert names(out) == ["r.html", *(["segmentation.nii.gz"] if there else [])]
    assert (out / "r.html").read_bytes() == b"somebody else's"
    assert not there or (out / "segmentation.nii.gz").read_bytes() == b"older"
