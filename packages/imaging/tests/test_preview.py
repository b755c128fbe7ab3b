"""The picture of a segmentation."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from innereye_core.config import CTWindow, ModelConfig
from innereye_core.errors import InputError
from innereye_imaging.geometry import Image, reorient
from innereye_imaging.preview import draw_preview, write_preview

MakeConfig = Callable[..., ModelConfig]
SIZE = (20, 30, 40)
LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


def scan() -> Image:
    return Image(np.random.default_rng(0).integers(-100, 200, SIZE).astype(np.int16), LPS)


def cube(z: int, y: int, x: int, label: int = 1, half: int = 4) -> np.ndarray:
    labels = np.zeros(SIZE, np.uint8)
    labels[z - half : z + half, y - half : y + half, x - half : x + half] = label
    return labels


def picture(path: Path) -> np.ndarray:
    assert Picture.open(path).format == "PNG"
    return np.asarray(Picture.open(path).convert("RGB")).astype(int)


def reddish(pixels: np.ndarray) -> np.ndarray:
    return (pixels[..., 0] > pixels[..., 1] + 60) & (pixels[..., 0] > pixels[..., 2] + 60)


def red_structure(make_config: MakeConfig, names: tuple[str, ...] = ("organ",)) -> ModelConfig:
    config = make_config(structures=names)
    assert config.colours[0][0] > 200  # the palette starts with red
    return config


def test_three_planes_show_the_structure_in_its_colour(tmp_path: Path, make_config: MakeConfig) -> None:
    write_preview(tmp_path / "p.png", scan(), cube(10, 15, 20), red_structure(make_config))
    pixels = picture(tmp_path / "p.png")
    height, width = pixels.shape[:2]
    assert width > 1000
    planes = reddish(pixels[: int(height * 0.8)])
    assert all(part.any() for part in np.array_split(planes, 3, axis=1))
    assert reddish(pixels[int(height * 0.85) :]).any()  # the legend


def test_the_patients_right_is_on_the_left(tmp_path: Path, make_config: MakeConfig) -> None:
    """In LPS files x counts to the left of the patient."""
    write_preview(tmp_path / "p.png", scan(), cube(10, 15, 6), red_structure(make_config))
    pixels = picture(tmp_path / "p.png")
    axial = pixels[: int(pixels.shape[0] * 0.8), : pixels.shape[1] // 3]
    columns = np.flatnonzero(reddish(axial).any(axis=0))
    assert columns.mean() < axial.shape[1] / 3


def test_the_picture_does_not_depend_on_how_the_file_stores_its_axes(tmp_path: Path, make_config: MakeConfig) -> None:
    """Nor on anything else but image and labels: equal pictures are equal bytes."""
    pictures = set()
    for codes in ("LPS", "RAS", "PSL"):
        turned = reorient(scan(), codes)
        labels = reorient(Image(cube(10, 12, 8), LPS), codes).voxels
        write_preview(tmp_path / f"{codes}.png", turned, labels, red_structure(make_config))
        pictures.add((tmp_path / f"{codes}.png").read_bytes())
    assert len(pictures) == 1


def test_planes_run_where_most_structures_are_seen(tmp_path: Path, make_config: MakeConfig) -> None:
    """Between two organs there may be neither: the plane through their common centre would be empty."""
    labels = np.maximum(cube(10, 15, 6), cube(10, 15, 34, label=2))
    write_preview(tmp_path / "p.png", scan(), labels, red_structure(make_config, ("right", "left")))
    pixels = picture(tmp_path / "p.png")
    sagittal = pixels[: int(pixels.shape[0] * 0.8), -pixels.shape[1] // 4 :]
    green = sagittal[..., 1] > np.maximum(sagittal[..., 0], sagittal[..., 2]) + 60
    assert reddish(sagittal).any() or green.any()


def test_a_segmentation_without_structures_can_be_drawn(tmp_path: Path, make_config: MakeConfig) -> None:
    write_preview(tmp_path / "p.png", scan(), np.zeros(SIZE, np.uint8), red_structure(make_config))
    pixels = picture(tmp_path / "p.png")
    assert not reddish(pixels[: int(pixels.shape[0] * 0.8)]).any()


def test_a_ct_is_shown_in_the_networks_window(tmp_path: Path, make_config: MakeConfig) -> None:
    image = Image(np.full(SIZE, 40, np.int16), LPS)
    config = make_config(normalization=CTWindow("ct_window", level=40, window=400))
    write_preview(tmp_path / "p.png", image, np.zeros(SIZE, np.uint8), config)
    pixels = picture(tmp_path / "p.png")
    assert pixels[pixels.shape[0] // 2, 100].tolist() == pytest.approx([127] * 3, abs=2)  # the middle of the window


def test_drawing_leaves_pyplot_alone(tmp_path: Path, make_config: MakeConfig) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    write_preview(tmp_path / "p.png", scan(), cube(10, 15, 20), red_structure(make_config))
    assert ("matplotlib.pyplot" in sys.modules) == loaded


def test_image_and_labels_must_be_a_pair(tmp_path: Path, make_config: MakeConfig) -> None:
    with pytest.raises(InputError, match="differ in shape"):
        write_preview(tmp_path / "p.png", scan(), np.zeros((1, 2, 3), np.uint8), red_structure(make_config))


@pytest.mark.parametrize("size", [(1, 1, 1), (1, 1, 1000), (1000, 1, 1), (1, 64, 64)])
@pytest.mark.parametrize("labelled", [0, 1])
def test_an_image_of_any_shape_makes_a_picture_of_a_usual_size(
    tmp_path: Path, make_config: MakeConfig, size: tuple[int, int, int], labelled: int
) -> None:
    labels = np.full(size, labelled, np.uint8)
    write_preview(tmp_path / "p.png", Image(np.zeros(size), LPS), labels, make_config())
    height, width, _ = picture(tmp_path / "p.png").shape
    assert width == 1800
    assert 250 < height < 2000


def test_the_legend_grows_with_the_structures(tmp_path: Path, make_config: MakeConfig) -> None:
    write_preview(tmp_path / "few.png", scan(), cube(10, 15, 20), make_config())
    write_preview(
        tmp_path / "many.png", scan(), cube(10, 15, 20), make_config(structures=[f"s{i}" for i in range(100)])
    )
    few, many = picture(tmp_path / "few.png"), picture(tmp_path / "many.png")
    assert many.shape[0] > few.shape[0] + 500
    planes = slice(0, int(few.shape[0] * 0.8))
    assert reddish(many[planes]).sum() > reddish(few[planes]).sum() * 0.8


@pytest.mark.parametrize("name", ["$x_{", "_hidden", "a" * 255])
@pytest.mark.filterwarnings("error")
def test_names_are_drawn_as_they_are(make_config: MakeConfig, name: str) -> None:
    assert draw_preview(scan(), cube(10, 15, 20), make_config(structures=[name])).startswith(b"\x89PNG")
