"""The report of one study for people: a single HTML file that needs nothing else, for the screen and for paper."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from innereye_core.config import ModelConfig
from innereye_core.model import Check
from innereye_imaging.provenance import Provenance
from innereye_imaging.statistics import StructureStatistics

REPORT_SUFFIXES = (".html", ".htm")

_NOT_A_DEVICE = (
    "Not a medical device: whoever uses this segmentation on patients is responsible for validating the model for that "
    "use, and for looking at the result."
)

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.45 system-ui, sans-serif; color: #1a1a1a; background: #fff; max-width: 62rem; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin: 0; }
h2 { font-size: 1.1rem; margin: 1.8rem 0 .5rem; break-after: avoid; }
p { margin: .4rem 0; }
img { width: 100%; height: auto; break-inside: avoid; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .7rem .3rem 0; border-bottom: 1px solid #d5d5d5;
  overflow-wrap: anywhere; }
th { font-weight: 600; }
tr { break-inside: avoid; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.swatch { display: inline-block; width: .8em; height: .8em; margin-right: .5em; border: 1px solid #666;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.review { border-left: .4rem solid #c62828; background: #fdecea; padding: .5rem 1rem; margin: 1rem 0;
  print-color-adjust: exact; -webkit-print-color-adjust: exact; }
.calm { border-left: .4rem solid #757575; padding: .1rem 1rem; margin: 1rem 0; }
.warning, .repaired, .unchecked { font-weight: 600; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
footer { margin-top: 2rem; border-top: 1px solid #d5d5d5; padding-top: .5rem; }
@page { margin: 15mm; }
@media print { body { font-size: 10pt; max-width: none; margin: 0; padding: 0; } }
"""


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says."""

    config: ModelConfig
    model: str
    """Model id, or folder."""
    provenance: Provenance
    members: int
    """Number of networks that were averaged."""
    images: Mapping[str, Path]
    """Image channel → file."""
    mask: Path | None
    segmentation: str
    """File name."""
    statistics: Mapping[str, StructureStatistics]
    checks: Sequence[Check]
    review: Sequence[str]
    runtime: str
    device: str
    seconds: float
    created: str
    """ISO 8601."""
    preview: bytes
    """A PNG file."""


def write_report(path: Path, report: Report) -> None:
    """Write the report as HTML that refers to nothing outside of itself.

    Raises:
        OSError: the disk is full or not writable.
    """
    path.write_bytes(_html(report).encode(errors="replace"))  # file names need not be text


def _html(report: Report) -> str:
    title = f"Segmentation with {report.model}"
    picture = base64.b64encode(report.preview).decode()
    parts = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(report.created)}</p>",
        _review(report),
        "<h2>Preview</h2>",
        f'<img alt="Axial, coronal and sagittal plane with the structures" src="data:image/png;base64,{picture}">',
        "<h2>Structures</h2>",
        _structures(report),
        "<h2>What was checked</h2>",
        _table(
            ("check", "outcome", "detail"),
            [
                (escape(check.name), f'<span class="{check.outcome}">{check.outcome}</span>', escape(check.detail))
                for check in report.checks
            ],
        ),
        "<h2>How it was made</h2>",
        _table((), _origin(report)),
        "<h2>Versions</h2>",
        _table(
            ("package", "here", "where the model was packaged"),
            [
                tuple(escape(text or "–") for text in (one.name, one.here, one.packaged))
                for one in report.provenance.versions
            ],
        ),
        f"<footer><p>{escape(_NOT_A_DEVICE)}</p></footer>",
    ]
    body = "\n".join(parts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _review(report: Report) -> str:
    if report.review:
        lines = "".join(f"<li>{escape(line)}</li>" for line in report.review)
        return f'<div class="review"><p><strong>Look at this first</strong></p><ul>{lines}</ul></div>'
    compared = "; ".join(f"{check.outcome}: {check.detail}" for check in report.checks if check.name == "review")
    return f'<div class="calm"><p>Nothing to look at first ({escape(compared)}).</p></div>'


def _structures(report: Report) -> str:
    channels = list(report.images)
    rows = []
    for structure, (red, green, blue) in zip(report.config.structures, report.config.colours, strict=True):
        found = report.statistics[structure.name]
        box = found.bounding_box
        place = "–"
        if box is not None:
            low, high = (
                ", ".join(f"{value:.1f}" for value in corner) for corner in (box.lowest_ras_mm, box.highest_ras_mm)
            )
            first, last = (", ".join(map(str, corner)) for corner in (box.first_zyx, box.last_zyx))
            place = f"{first} – {last}<br>({low}) – ({high}) mm"
        swatch = f'<span class="swatch" style="background: rgb({red}, {green}, {blue})"></span>'
        rows.append(
            (
                swatch + escape(structure.title),
                str(found.label),
                f"{found.volume_ml:.2f}",
                str(found.voxels),
                str(found.components),
                "yes" if found.touches_border else "no",
                place,
                *(f"{found.mean_intensity[name]:.4g}" if name in found.mean_intensity else "–" for name in channels),
            )
        )
    header = (
        *(
            "structure",
            "label",
            "ml",
            "voxels",
            "components",
            "at the border",
            "box: voxels z, y, x; right, anterior, superior",
        ),
        *(f"mean of {name}" for name in channels),
    )
    return _table(header, rows, numbers={1, 2, 3, 4, *range(7, 7 + len(channels))})


def _origin(report: Report) -> Iterable[tuple[str, str]]:
    yield "model", escape(report.model)
    yield "name in its config", escape(report.config.model_name)
    digest = report.provenance.digest
    yield "digest of its manifest", f"<code>{escape(digest)}</code>" if digest else "no package"
    yield "networks averaged", str(report.members)
    for channel, path in report.images.items():
        yield f"image {escape(channel)}", escape(str(path))
    if report.mask is not None:
        yield "mask", escape(str(report.mask))
    yield "segmentation", escape(report.segmentation)
    yield "runtime", escape(f"{report.runtime} on {report.device}")
    yield "time", f"{report.seconds:.1f} s"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: Iterable[int] = ()) -> str:
    """A table of cells that are HTML already, under a header that is text."""
    right = set(numbers)

    def cell(tag: str, column: int, content: str) -> str:
        kind = ' class="number"' if column in right else ""
        return f"<{tag}{kind}>{content}</{tag}>"

    lines = ["<table>"]
    if header:
        cells = "".join(cell("th", column, escape(text)) for column, text in enumerate(header))
        lines += [f"<thead><tr>{cells}</tr></thead>"]
    lines += ["<tbody>"]
    for row in rows:
        lines += [f"<tr>{''.join(cell('td', column, content) for column, content in enumerate(row))}</tr>"]
    return "\n".join([*lines, "</tbody>", "</table>"])
