"""What a segmentation says about its structures, against values counted by hand and by other libraries."""

from __future__ import annotations

import csv
import json
import math
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import scipy.ndimage

from innereye_imaging.geometry import Grid
from innereye_imaging.statistics import BoundingBox, StructureStatistics, count_components, structure_statistics
from innereye_imaging.statistics_files import write_statistics

LPS_2MM = np.diag([-2.0, -2.0, 4.0, 1.0])
LPS_2MM[:3, 3] = [10, 20, -30]


def two_structures() -> np.ndarray:
    """The first has a block and a voxel that touches it at an edge only, the second is one voxel in a corner."""
    labels = np.zeros((4, 5, 6), np.uint8)
    labels[1, 1:3, 2:5] = 1
    labels[2, 3, 3] = 1
    labels[3, 4, 5] = 2
    return labels


def found() -> dict[str, StructureStatistics]:
    labels = two_structures()
    values = np.arange(labels.size, dtype=np.int16).reshape(labels.shape)
    channels = [("ct", values), ("pet", np.where(labels == 1, 2.5, -1))]
    return structure_statistics(labels, Grid(labels.shape, LPS_2MM), ["one", "two", "three"], channels)


def test_voxels_volume_and_components() -> None:
    one = found()["one"]
    assert (one.label, one.voxels, one.components) == (1, 7, 2)
    assert one.volume_ml == pytest.approx(7 * 16 / 1000)


def test_a_structure_touches_the_border_where_it_has_a_voxel_at_the_edge() -> None:
    assert [statistics.touches_border for statistics in found().values()] == [False, True, False]


def test_bounding_box_in_voxels_and_in_mm() -> None:
    """x runs from voxel edge 1.5 to 4.5, and 10 mm - 2 mm · 4.5 = 1 mm; likewise y and z."""
    assert found()["one"].bounding_box == BoundingBox(
        first_zyx=(1, 1, 2), last_zyx=(2, 3, 4), lowest_ras_mm=(1, 13, -28), highest_ras_mm=(7, 19, -20)
    )


def test_bounding_box_of_an_oblique_image_holds_all_corners() -> None:
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(math.pi / 4), [0, 0, 0])
    labels = np.ones((1, 1, 1), np.uint8)
    box = structure_statistics(labels, Grid((1, 1, 1), affine), ["a"])["a"].bounding_box
    assert box is not None
    half = math.sqrt(0.5)
    assert box.lowest_ras_mm == pytest.approx((-half, -half, -0.5))
    assert box.highest_ras_mm == pytest.approx((half, half, 0.5))


def test_mean_intensity_of_each_channel() -> None:
    one, two, _ = found().values()
    values = np.arange(120).reshape(4, 5, 6)
    assert one.mean_intensity == {"ct": pytest.approx(values[two_structures() == 1].mean()), "pet": 2.5}
    assert two.mean_intensity == {"ct": 119, "pet": -1}


def test_a_structure_that_was_not_found() -> None:
    assert found()["three"] == StructureStatistics(3, 0, 0.0, 0, False, None, {})


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32, np.float64, bool])
def test_means_of_any_type_of_voxels(dtype: type) -> None:
    labels = np.ones((2, 2, 2), np.uint8)
    values = np.array([0, 1] * 4).reshape(2, 2, 2).astype(dtype)
    statistics = structure_statistics(labels, Grid((2, 2, 2), np.eye(4)), ["a"], [("ct", values)])
    assert statistics["a"].mean_intensity == {"ct": 0.5}


@pytest.mark.parametrize("shape", [(40, 9, 11), (17, 5, 5), (16, 4, 4), (33, 1, 7), (1, 1, 1)])
@pytest.mark.parametrize("structures", [1, 2, 4])
def test_components_are_those_of_the_whole_image(shape: tuple[int, int, int], structures: int) -> None:
    labels = np.random.default_rng(structures).integers(0, structures + 1, shape).astype(np.uint8)
    expected = [scipy.ndimage.label(labels == number)[1] for number in range(1, structures + 1)]
    assert count_components(labels)[: structures + 1] == [0, *expected]


def test_a_structure_that_winds_through_all_slices_is_one_component() -> None:
    labels = np.zeros((100, 3, 3), np.uint8)
    labels[:, 0, 0] = labels[:, 2, 2] = 1
    labels[99, :, 0] = labels[99, 2, :] = 1
    assert count_components(labels)[1] == 1


def test_counting_components_holds_no_array_of_wide_numbers() -> None:
    labels = np.zeros((256, 64, 64), np.uint8)
    labels[10:250, 10:50, 10:50] = 1
    tracemalloc.start()
    count_components(labels)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < labels.nbytes


@pytest.mark.parametrize("size", [(1, 1, 1), (3, 4, 5)])
def test_an_empty_segmentation(size: tuple[int, int, int], tmp_path: Path) -> None:
    labels = np.zeros(size, np.uint8)
    statistics = structure_statistics(labels, Grid(size, np.eye(4)), ["a"], [("ct", np.ones(size))])
    assert statistics == {"a": StructureStatistics(1, 0, 0.0, 0, False, None, {})}
    for name in ("s.json", "s.csv"):
        write_statistics(tmp_path / name, statistics, ["ct"], "Test:1")
        assert (tmp_path / name).stat().st_size > 0


# --- files ------------------------------------------------------------------------------------------------------------


def test_json_file(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.json", found(), ["ct", "pet"], "Test:1")
    document = json.loads((tmp_path / "s.json").read_text())
    assert (document["schema_version"], document["model"]) == (1, "Test:1")
    assert list(document["structures"]) == ["one", "two", "three"]
    assert document["structures"]["two"] == {
        "label": 2,
        "voxels": 1,
        "volume_ml": pytest.approx(0.016),
        "components": 1,
        "touches_border": True,
        "bounding_box": {
            "first_zyx": [3, 4, 5],
            "last_zyx": [3, 4, 5],
            "lowest_ras_mm": [-1, 11, -20],
            "highest_ras_mm": [1, 13, -16],
        },
        "mean_intensity": {"ct": 119, "pet": -1},
    }
    assert document["structures"]["three"]["bounding_box"] is None


def test_csv_file(tmp_path: Path) -> None:
    write_statistics(tmp_path / "s.CSV", found(), ["ct", "pet"], "Test:1")
    with (tmp_path / "s.CSV").open(newline="") as file:
        one, two, three = csv.DictReader(file)
    assert (one["structure"], one["voxels"], one["touches_border"]) == ("one", "7", "0")
    assert [float(one[f"{end}_{axis}"]) for end in ("first", "last") for axis in "zyx"] == [1, 1, 2, 2, 3, 4]
    assert (float(one["lowest_right_mm"]), float(one["highest_superior_mm"])) == (1, -20)
    assert (two["mean_ct"], two["mean_pet"]) == ("119.0", "-1.0")
    assert (three["volume_ml"], three["first_z"], three["mean_ct"]) == ("0.0", "", "")


def test_names_with_commas_and_quotes_stay_whole(tmp_path: Path) -> None:
    labels = np.ones((1, 1, 1), np.uint8)
    statistics = structure_statistics(labels, Grid((1, 1, 1), np.eye(4)), ['a, "b"'])
    write_statistics(tmp_path / "s.csv", statistics, [], "Test:1")
    with (tmp_path / "s.csv").open(newline="") as file:
        assert next(iter(csv.DictReader(file)))["structure"] == 'a, "b"'
