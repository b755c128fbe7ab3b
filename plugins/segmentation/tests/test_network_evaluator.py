"""Candidates are scored on the validation images, each image prepared once for all of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from innereye_core.config import ModelConfig
from innereye_core.errors import InputError
from innereye_core.host import Host
from innereye_core.model import Candidate, Run
from innereye_imaging.pipeline import prepare_study, segment
from innereye_segmentation.networks import UNet3D
from innereye_segmentation.providers import NetworkEvaluator
from innereye_segmentation.runtime import load_network

MakeConfig = Callable[..., ModelConfig]
WriteImage = Callable[..., Path]


@pytest.fixture
def run(tmp_path: Path, tiny_unet: UNet3D, write_image: WriteImage) -> Run:
    """Two validation subjects and two candidates, of which the second never finds the organ."""
    rows = ["subject,filePath,channel,split"]
    generator = np.random.default_rng(5)
    for subject in ("1", "2"):
        write_image(tmp_path / "images" / f"{subject}.nii.gz", generator.integers(0, 100, (10, 9, 12)).astype(np.int16))
        write_image(tmp_path / "images" / f"{subject}_organ.nii.gz", np.zeros((10, 9, 12), np.uint8))
        rows += [f"{subject},images/{subject}.nii.gz,ct,val", f"{subject},images/{subject}_organ.nii.gz,organ,val"]
    (tmp_path / "dataset.csv").write_text("\n".join(rows))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"epoch": 1, "state_dict": tiny_unet.state_dict()}, tmp_path / "checkpoints" / "1_checkpoint.pth.tar")
    with torch.no_grad():
        assert tiny_unet.output_layer.bias is not None
        tiny_unet.output_layer.bias[0] += 100
    torch.save({"epoch": 2, "state_dict": tiny_unet.state_dict()}, tmp_path / "checkpoints" / "2_checkpoint.pth.tar")
    return Run("run", "run", tmp_path, "local")


def candidates_of(run: Run) -> list[Candidate]:
    folder = run.folder / "checkpoints"
    return [Candidate(epoch, folder / f"{epoch}_checkpoint.pth.tar", "innereye") for epoch in (1, 2)]


def labels_of(run: Run, subject: str, config: ModelConfig, providers: Host) -> NDArray[np.uint8]:
    network = load_network(config, run.folder / "checkpoints" / "1_checkpoint.pth.tar", None, "cpu")
    return segment(
        prepare_study([run.folder / "images" / f"{subject}.nii.gz"], config, providers), [network], config
    ).labels


def test_every_candidate_is_scored_on_every_subject(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any, write_image: WriteImage
) -> None:
    config = tiny_config()
    labels = labels_of(run, "1", config, providers)
    assert labels.any()
    write_image(run.folder / "images" / "1_organ.nii.gz", labels)
    scores = NetworkEvaluator().evaluate(run, config, candidates_of(run), None, providers, progress)
    assert {epoch: [score.subject for score in subjects] for epoch, subjects in scores.items()} == {
        1: ["1", "2"],
        2: ["1", "2"],
    }
    assert scores[1][0].dice == {"organ": 1.0}, "the mask is what this candidate finds"
    assert scores[1][1].dice == {"organ": 0.0}, "the mask is empty, but something is found"
    assert scores[2][0].dice == {"organ": 0.0}, "nothing is found"
    assert math.isnan(scores[2][1].dice["organ"]), "empty in both"
    assert (progress.totals, progress.steps) == ([4], 4)


def test_each_image_is_read_once_for_all_candidates(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any
) -> None:
    read: list[str] = []

    class CountingNifti:
        def __init__(self, nifti: Any) -> None:
            self.name, self.suffixes, self.write, self._read = nifti.name, nifti.suffixes, nifti.write, nifti.read

        def read(self, path: Path) -> Any:
            read.append(path.name)
            return self._read(path)

    class CountingHost(Host):
        def image_formats(self) -> list[Any]:
            return [CountingNifti(image_format) for image_format in providers.image_formats()]

    NetworkEvaluator().evaluate(run, tiny_config(), candidates_of(run), None, CountingHost([]), progress)
    assert sorted(read) == ["1.nii.gz", "1_organ.nii.gz", "2.nii.gz", "2_organ.nii.gz"]


def test_candidates_of_other_plugins_formats_are_left_to_others(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any
) -> None:
    other = Candidate(3, run.folder / "checkpoints" / "3.onnx", "onnx")
    evaluate = NetworkEvaluator().evaluate
    assert evaluate(run, tiny_config(), [other], None, providers, progress) == {}
    assert set(evaluate(run, tiny_config(), [*candidates_of(run), other], None, providers, progress)) == {1, 2}


def test_a_broken_candidate_is_refused_before_any_image_is_segmented(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any
) -> None:
    (run.folder / "checkpoints" / "2_checkpoint.pth.tar").write_bytes(b"")
    with pytest.raises(InputError, match=r"2_checkpoint.pth.tar: is corrupt"):
        NetworkEvaluator().evaluate(run, tiny_config(), candidates_of(run), None, providers, progress)
    assert progress.totals == []


def test_an_empty_validation_split_is_refused(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any
) -> None:
    dataset = run.folder / "dataset.csv"
    dataset.write_text(dataset.read_text().replace(",val", ",train"))
    with pytest.raises(InputError, match="empty validation split"):
        NetworkEvaluator().evaluate(run, tiny_config(), candidates_of(run), None, providers, progress)


def test_a_mask_of_another_shape_is_refused_with_its_name(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any, write_image: WriteImage
) -> None:
    write_image(run.folder / "images" / "2_organ.nii.gz", np.zeros((10, 9, 11), np.uint8))
    with pytest.raises(InputError, match=r"2_organ.nii.gz"):
        NetworkEvaluator().evaluate(run, tiny_config(), candidates_of(run), None, providers, progress)


def test_outside_the_mask_of_a_subject_nothing_is_found(
    run: Run, tiny_config: MakeConfig, providers: Host, progress: Any, write_image: WriteImage
) -> None:
    region = np.zeros((10, 9, 12), np.uint8)
    region[:5] = 1
    labels = labels_of(run, "1", tiny_config(), providers)
    assert labels[:5].any()
    assert labels[5:].any()
    write_image(run.folder / "images" / "region.nii.gz", region)
    write_image(run.folder / "images" / "1_organ.nii.gz", labels * region)
    with (run.folder / "dataset.csv").open("a") as dataset:
        dataset.write("\n1,images/region.nii.gz,mask,val")
    scores = NetworkEvaluator().evaluate(run, tiny_config(), candidates_of(run), None, providers, progress)
    assert scores[1][0].dice == {"organ": 1.0}
