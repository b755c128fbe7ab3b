"""From NIfTI file and checkpoint to labels and posteriors, against the original's two pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import nibabel
import numpy as np
import pytest
from numpy.typing import NDArray

from innereye_core.config import (
    CTWindow,
    InferenceConfig,
    LargestComponent,
    ModelConfig,
    NetworkConfig,
    PostprocessingConfig,
    Structure,
)
from innereye_core.host import Host
from innereye_core.model import ModelFiles
from innereye_imaging.pipeline import Segmentation, prepare_study, segment
from innereye_segmentation.providers import TorchRuntime

LATER = ("a_noise_stride_eq_crop", "a_noise_stride_half", "c_phantom_stride_half", "j_phantom_lcc")
EARLIER = ("a_noise_stride_half", "c_phantom_stride_eq_crop")


def config_of(case: dict[str, Any], stitching: Literal["average", "crop"]) -> ModelConfig:
    components = case.get("largest_connected_component_foreground_classes") or []
    return ModelConfig(
        schema_version=1,
        model_name="Golden",
        structures=(Structure("liver"), Structure("spleen"), Structure("kidney")),
        image_channels=("ct",),
        network=NetworkConfig(
            "innereye_segmentation.networks:UNet3D",
            {"input_channels": 1, "feature_channels": 4, "classes": 4, "downsampling_paths": 2},
        ),
        inference=InferenceConfig(
            crop_size_zyx=tuple(case["test_crop_size"]),
            stride_zyx=tuple(case["inference_stride_size"]),
            padding="edge",
            stitching=stitching,
        ),
        normalization=CTWindow("ct_window", level=40, window=400, output_range=(-1, 1)),
        postprocessing=PostprocessingConfig(
            largest_component=tuple(LargestComponent(name, threshold) for name, threshold in components)
        ),
    )


def segment_case(
    golden: Path, case: dict[str, Any], stitching: Literal["average", "crop"], providers: Host
) -> Segmentation:
    checkpoint = "3_checkpoint.pth.tar" if stitching == "average" else "unet3d_a.ckpt"
    config = config_of(case, stitching)
    networks = TorchRuntime().load(ModelFiles(config, (golden / "unet3d" / checkpoint,)), "cpu")
    study = prepare_study([golden / "pipeline" / case["image"]], config, providers)
    return segment(study, networks, config, posteriors=True)


def certain(posteriors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Where the two most probable classes differ by more than rounding."""
    second, first = np.sort(posteriors, axis=0)[-2:]
    clear: NDArray[np.bool_] = first - second >= 1e-4
    return clear


@pytest.mark.parametrize(
    ("folder", "name", "stitching"),
    [("pipeline", name, "crop") for name in LATER] + [("pipeline_cd4458e1", name, "average") for name in EARLIER],
)
def test_labels_and_posteriors_are_those_of_the_original(
    golden: Path, providers: Host, folder: str, name: str, stitching: Literal["average", "crop"]
) -> None:
    case = json.loads((golden / folder / "cases.json").read_text())[name]
    expected = np.load(golden / folder / f"{name}.npz")
    found = segment_case(golden, case, stitching, providers)
    assert found.posteriors is not None
    np.testing.assert_allclose(found.posteriors, expected["posteriors"], rtol=0, atol=1e-5)
    clear = certain(expected["posteriors"])
    assert np.count_nonzero(~clear) <= 23
    assert np.array_equal(found.labels[clear], expected["segmentation"][clear])


def test_the_segmentation_is_that_of_the_originals_scoring_script(golden: Path, providers: Host) -> None:
    case = json.loads((golden / "pipeline" / "cases.json").read_text())["n_score_single"]
    expected = np.asarray(nibabel.Nifti1Image.from_filename(golden / "pipeline" / case["output"]).dataobj).T
    found = segment_case(golden, case, "crop", providers)
    assert found.posteriors is not None
    clear = certain(found.posteriors)
    assert np.count_nonzero(~clear) <= 23
    assert np.array_equal(found.labels[clear], expected[clear])
