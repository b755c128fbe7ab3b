"""The report: one whole, valid HTML file that refers to nothing outside, and says what a person needs to know."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from innereye_core.config import ModelConfig, Structure
from innereye_core.model import Check
from innereye_imaging.geometry import Grid, Image
from innereye_imaging.preview import draw_preview
from innereye_imaging.provenance import Provenance, Version, provenance_of
from innereye_imaging.report import Report, write_report
from innereye_imaging.statistics import structure_statistics

VOID = {"meta", "img", "br", "link", "hr", "input"}
ATTRIBUTES_THAT_LOAD = {"src", "href", "srcset", "action", "data", "poster", "background", "cite"}


class Page(HTMLParser):
    """Reads HTML, and refuses what is not nested as it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.references: list[str] = []
        self.text = ""
        self.declaration = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_decl(self, decl: str) -> None:
        self.declaration = decl

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names)
        self.references += [value or "" for name, value in attrs if name in ATTRIBUTES_THAT_LOAD]
        assert not any(name.startswith("on") for name in names)
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if self.open[-1:] != ["style"] else ""
        if self.open[-1:] == ["style"]:
            assert "url(" not in data
            assert "@import" not in data


LABELS = np.zeros((4, 5, 6), np.uint8)
LABELS[1:3, 1:4, 2:5] = 1
VALUES = np.random.default_rng(0).integers(0, 200, LABELS.shape).astype(np.int16)


@pytest.fixture
def make_report(make_config: Callable[..., ModelConfig]) -> Callable[..., Report]:
    def make(structures: tuple[str, ...] = ("organ", "other"), labels: np.ndarray = LABELS, **others: object) -> Report:
        config = make_config(structures=structures)
        values = VALUES if labels is LABELS else np.zeros(labels.shape, np.int16)
        grid = Grid(labels.shape, np.diag([-1.0, -1.0, 2.0, 1.0]))
        report = Report(
            config=config,
            model="Prostate:892",
            provenance=Provenance("sha256:0123456789abcdef", (Version("numpy", "2.4.0", "2.3.0"),)),
            members=5,
            images={"ct": Path("scans/ct.nii.gz")},
            mask=None,
            segmentation="segmentation.nii.gz",
            statistics=structure_statistics(labels, grid, structures, [("ct", values)]),
            checks=(
                Check("orientation", "repaired", "turned from RAS to LPS"),
                Check("review", "passed", "compared with 12 subjects"),
            ),
            review=(),
            runtime="torch",
            device="cuda",
            seconds=2.54,
            created="2026-11-30T12:00:00+01:00",
            preview=draw_preview(Image(values, grid.affine), labels, config),
        )
        return replace(report, **others)

    return make


def page(report: Report, folder: Path) -> Page:
    write_report(folder / "report.html", report)
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_is_a_whole_page_that_refers_to_nothing_outside(make_report: Callable[..., Report], tmp_path: Path) -> None:
    found = page(make_report(), tmp_path)
    assert found.declaration.lower() == "doctype html"
    assert [found.tags.count(tag) for tag in ("html", "head", "title", "body", "h1", "style")] == [1] * 6
    assert not {"script", "link", "iframe", "object"} & set(found.tags)
    (picture,) = found.references
    assert picture.startswith("data:image/png;base64,")
    assert Picture.open(io.BytesIO(base64.b64decode(picture.partition(",")[2]))).format == "PNG"


@pytest.mark.parametrize(
    "words",
    [
        "Prostate:892",
        "sha256:0123456789abcdef",
        "torch on cuda",
        "2.5 s",
        "2026-11-30T12:00:00+01:00",
        "scans/ct.nii.gz",
        "segmentation.nii.gz",
        "turned from RAS to LPS",
        "numpy",
        "2.3.0",
        "Not a medical device",
        "compared with 12 subjects",
    ],
)
def test_it_says_what_the_result_was_made_of(make_report: Callable[..., Report], tmp_path: Path, words: str) -> None:
    assert words in page(make_report(), tmp_path).text


def test_numbers_of_a_structure_are_in_its_row(make_report: Callable[..., Report], tmp_path: Path) -> None:
    report = make_report()
    row = page(report, tmp_path).text.partition("organ")[2].partition("other")[0]
    assert row.startswith("10.04181no")  # label, ml, voxels, components, at the border
    assert "1, 1, 2 – 2, 3, 4" in row
    assert f"{report.statistics['organ'].mean_intensity['ct']:.4g}" in row


def test_what_is_to_be_reviewed_comes_before_everything_else(
    make_report: Callable[..., Report], tmp_path: Path
) -> None:
    text = page(make_report(review=("organ: 0.1 ml, but 12 subjects had 20 to 80 ml",)), tmp_path).text
    assert text.index("Look at this first") < text.index("organ: 0.1 ml") < text.index("Preview")


@pytest.mark.parametrize("nasty", ['<script>alert("x")</script>', "a & b < c", "\"quoted\" 'twice'", "größe Ω"])
def test_names_are_text_whatever_they_look_like(make_report: Callable[..., Report], tmp_path: Path, nasty: str) -> None:
    report = make_report()
    structures = (Structure("organ", display_name=nasty), Structure("other"))
    found = page(
        replace(
            report,
            config=replace(report.config, structures=structures),
            model=nasty,
            images={"ct": Path(nasty)},
            mask=Path(nasty),
            segmentation=nasty,
            checks=(Check("orientation", "warning", nasty),),
            review=(nasty,),
            runtime=nasty,
        ),
        tmp_path,
    )
    assert "script" not in found.tags
    assert found.text.count(nasty) >= 9


def test_a_file_name_that_is_no_text_is_no_obstacle(make_report: Callable[..., Report], tmp_path: Path) -> None:
    assert "ct?.nii" in page(make_report(images={"ct": Path("ct\udcff.nii")}), tmp_path).text


def test_an_image_of_one_voxel_without_structures(make_report: Callable[..., Report], tmp_path: Path) -> None:
    found = page(make_report(labels=np.zeros((1, 1, 1), np.uint8)), tmp_path)
    assert "organ100" in found.text.replace(".00", "")


# --- what a result was made with --------------------------------------------------------------------------------------


def test_without_a_package_there_is_no_digest() -> None:
    found = provenance_of(None)
    assert found.digest is None
    here = {version.name: version.here for version in found.versions}
    assert here["numpy"] == np.__version__
    assert here["python"] is not None
    assert here["innereye-imaging"] is not None
