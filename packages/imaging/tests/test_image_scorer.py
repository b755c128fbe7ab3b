"""The scorer: from a request to files, which runtime it takes, and what it refuses before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError, IntegrityError, MissingPluginError, UsageError
from innereye_core.model import ModelFiles, ScoreRequest
from innereye_core.progress import Silent
from innereye_imaging.scorer import ImageScorer, choose_runtime

RANDOM = np.random.default_rng(0).random((6, 7, 8)).astype(np.float32)
OBLIQUE = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2) @ np.diag([-0.5, -0.5, 2.0]), [10, 20, -30])


@pytest.fixture
def request_for(
    tmp_path: Path, write_nifti: Callable[..., Path], make_config: Callable[..., ModelConfig]
) -> Callable[..., ScoreRequest]:
    """A request for one image and one checkpoint; keyword arguments replace parts of it."""
    image = write_nifti(RANDOM, OBLIQUE)

    def make(config: ModelConfig | None = None, checkpoints: int = 1, **others: Any) -> ScoreRequest:
        names = tuple(Path(f"{fold}.pth.tar") for fold in range(checkpoints))
        parts = {"images": (image,), "output": tmp_path / "segmentation.nii.gz", "model_name": "Test:1", **others}
        return ScoreRequest(model=ModelFiles(config or make_config(), names), **parts)

    return make


@pytest.fixture
def runtime(installed: Any, numpy_runtime: Any, numpy_network: Any, identity: Any) -> Any:
    installed.available_runtimes.append(numpy_runtime([numpy_network(identity)]))
    return installed.available_runtimes[0]


def score(request: ScoreRequest, installed: Any) -> Any:
    return ImageScorer().score(request, installed, Silent())


def test_the_segmentation_lies_on_the_images_own_grid(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any
) -> None:
    request = request_for()
    score(request, installed)
    found, image = nib.load(request.output), nib.load(request.images[0])
    np.testing.assert_array_equal(found.affine, image.affine)
    assert found.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(np.asanyarray(found.dataobj).T, RANDOM > 0.5)


def test_the_result_says_what_was_found(request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any) -> None:
    request = request_for()
    result = score(request, installed)
    voxels = int((RANDOM > 0.5).sum())
    assert (result.segmentation, result.model, result.runtime) == (request.output, "Test:1", "numpy")
    organ = result.structures["organ"]
    assert (organ.label, organ.voxels) == (1, voxels)
    assert organ.volume_ml == pytest.approx(voxels * 0.5 / 1000, rel=1e-5)
    assert {"channels", "values", "orientation", "spacing"} <= {check.name for check in result.checks}
    assert result.seconds > 0
    assert result.posteriors is None


def test_posteriors_are_written_as_x_y_z_class_with_the_background_first(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path
) -> None:
    result = score(request_for(posteriors=tmp_path / "posteriors.nii.gz"), installed)
    found = nib.load(result.posteriors)
    assert found.shape == (8, 7, 6, 2)
    assert found.get_data_dtype() == np.float32
    np.testing.assert_allclose(found.affine, OBLIQUE, atol=1e-5)
    np.testing.assert_allclose(found.get_fdata()[..., 1].T, RANDOM, atol=1e-6)
    np.testing.assert_allclose(found.get_fdata().sum(axis=-1), 1, atol=1e-6)


def test_equal_results_are_equal_bytes(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path
) -> None:
    for name in ("a.nii.gz", "b.nii.gz"):
        score(request_for(output=tmp_path / name), installed)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("name", ["s.nii", "s.nrrd", "s.mha"])
def test_other_formats_are_written_by_their_ending(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path, name: str
) -> None:
    score(request_for(output=tmp_path / name), installed)
    found = SimpleITK.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(found), RANDOM > 0.5)
    assert found.GetSpacing() == pytest.approx((0.5, 0.5, 2.0), rel=1e-5)


def test_an_ensemble_is_scored_with_all_members(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, numpy_network: Any, identity: Any
) -> None:
    runtime.networks = [numpy_network(identity), numpy_network(lambda patches: identity(patches**3))]
    request = request_for(checkpoints=2)
    score(request, installed)
    np.testing.assert_array_equal(nib.load(request.output).get_fdata().T, (RANDOM + RANDOM**3) / 2 > 0.5)


def test_a_member_that_was_not_loaded_is_an_error(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any
) -> None:
    request = request_for(checkpoints=2)
    with pytest.raises(IntegrityError, match="loaded 1 of 2 checkpoints"):
        score(request, installed)
    assert not request.output.exists()


# --- outputs ---


@pytest.mark.parametrize("which", ["output", "posteriors"])
def test_an_existing_file_is_kept_unless_overwriting_is_asked_for(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path, which: str
) -> None:
    existing = tmp_path / "existing.nii.gz"
    existing.write_bytes(b"precious")
    with pytest.raises(InputError, match=r"existing\.nii\.gz exists already; .* --overwrite"):
        score(request_for(**{which: existing}), installed)
    assert existing.read_bytes() == b"precious"
    assert runtime.loaded_on == []
    score(request_for(**{which: existing}, overwrite=True), installed)
    assert nib.load(existing).shape[:3] == (8, 7, 6)


def test_a_failure_leaves_the_existing_file_and_nothing_else(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path, numpy_network: Any
) -> None:
    runtime.networks = [numpy_network(lambda patches: np.repeat(patches * np.nan, 2, axis=1))]
    (tmp_path / "out").mkdir()
    existing = tmp_path / "out" / "s.nii.gz"
    existing.write_bytes(b"precious")
    with pytest.raises(IntegrityError):
        score(request_for(output=existing, overwrite=True), installed)
    assert [path.name for path in existing.parent.iterdir()] == ["s.nii.gz"]
    assert existing.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("others", "error", "problem"),
    [
        ({"output": Path("no such folder/s.nii.gz")}, InputError, "Folder no such folder does not exist"),
        ({"output": Path("s.jpg")}, UsageError, "no installed image format has this ending"),
        ({"output": Path("s.mhd")}, UsageError, "would be two files"),
        ({"output": Path()}, UsageError, "no installed image format"),
        ({"posteriors": Path("p.nrrd")}, UsageError, "need NIfTI"),
        ({"posteriors": Path("p.mha")}, UsageError, "need NIfTI"),
        ({"output": Path("s.nii"), "posteriors": Path("s.nii")}, UsageError, "would both be written to s.nii"),
        ({"images": ()}, InputError, r"0 image\(s\) given, but Test takes 1"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_loaded(
    request_for: Callable[..., ScoreRequest],
    installed: Any,
    runtime: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    others: dict[str, Any],
    error: type[Exception],
    problem: str,
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(error, match=problem):
        score(request_for(**others), installed)
    assert runtime.loaded_on == []
    assert list(Path.cwd().iterdir()) == []


def test_a_folder_is_no_output(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path
) -> None:
    (tmp_path / "folder.nii.gz").mkdir()
    with pytest.raises(InputError, match="is a folder; name a file in it"):
        score(request_for(output=tmp_path / "folder.nii.gz", overwrite=True), installed)


def test_an_input_is_never_overwritten(request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any) -> None:
    request = request_for()
    before = request.images[0].read_bytes()
    same = request.images[0].parent / "." / request.images[0].name
    with pytest.raises(UsageError, match="is also an input image"):
        score(request_for(output=same, overwrite=True), installed)
    assert request.images[0].read_bytes() == before


def test_a_bad_image_is_refused_before_the_network_is_loaded(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="does not exist"):
        score(request_for(images=(tmp_path / "missing.nii.gz",)), installed)
    assert runtime.loaded_on == []


# --- runtimes ---


@pytest.mark.parametrize(
    ("device", "expected"), [("auto", ("gpu", "cuda")), ("cuda", ("gpu", "cuda")), ("cpu", ("fast", "cpu"))]
)
def test_the_highest_rank_on_the_device_wins_and_cuda_goes_first(
    request_for: Callable[..., ScoreRequest], numpy_runtime: Any, device: str, expected: tuple[str, str]
) -> None:
    runtimes = [
        numpy_runtime(name="slow", ranks={"cpu": 1, "cuda": 5}),
        numpy_runtime(name="fast", ranks={"cpu": 20}),
        numpy_runtime(name="gpu", ranks={"cpu": 3, "cuda": 10}),
    ]
    runtime, chosen = choose_runtime(request_for(device=device), runtimes)
    assert (runtime.name, chosen) == expected


def test_without_a_gpu_auto_takes_the_cpu(request_for: Callable[..., ScoreRequest], numpy_runtime: Any) -> None:
    assert choose_runtime(request_for(), [numpy_runtime()])[1] == "cpu"


def test_a_named_runtime_is_taken_whatever_its_rank(
    request_for: Callable[..., ScoreRequest], numpy_runtime: Any
) -> None:
    runtimes = [numpy_runtime(name="a", ranks={"cuda": 9}), numpy_runtime(name="b", ranks={"cpu": 1})]
    runtime, device = choose_runtime(request_for(runtime="b"), runtimes)
    assert (runtime.name, device) == ("b", "cpu")


@pytest.mark.parametrize(
    ("others", "problem"),
    [
        ({"runtime": "openvino"}, "Runtime openvino is not installed .* pip install innereye-openvino"),
        ({"runtime": "onnx"}, r"Runtime onnx is not installed .* pip install 'innereye-onnx\[cpu\]'"),
        ({"device": "cuda"}, r"No runtime can use a CUDA device here \(asked: numpy\); use --device cpu"),
    ],
)
def test_what_is_missing_is_named_with_the_command_that_helps(
    request_for: Callable[..., ScoreRequest], installed: Any, runtime: Any, others: dict[str, Any], problem: str
) -> None:
    with pytest.raises(MissingPluginError, match=problem):
        score(request_for(**others), installed)


def test_a_runtime_that_cannot_run_the_model_is_not_used(
    request_for: Callable[..., ScoreRequest], numpy_runtime: Any
) -> None:
    with pytest.raises(MissingPluginError, match="No installed runtime can run this model on the CPU"):
        choose_runtime(request_for(), [numpy_runtime(ranks={})])


def test_without_any_runtime_the_command_is_named(request_for: Callable[..., ScoreRequest], installed: Any) -> None:
    with pytest.raises(MissingPluginError, match="pip install innereye-segmentation"):
        score(request_for(), installed)
