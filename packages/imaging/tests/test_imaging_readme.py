"""The README's example runs as it stands."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np


def test_the_example_segments_bone(tmp_path: Path) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    example = readme.split("```python\n")[1].split("```")[0]
    ct = np.full((60, 50, 40), -1000, np.int16)
    ct[10:30, 15:35, 20:30] = 700
    nib.save(nib.Nifti1Image(ct, np.diag([0.8, 0.8, 2.0, 1.0])), tmp_path / "ct.nii.gz")
    environment = {**os.environ, "INNEREYE_LOAD_PLUGINS": "imaging"}
    completed = subprocess.run(
        [sys.executable, "-c", example], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert completed.returncode == 0, completed.stderr
    np.testing.assert_array_equal(nib.load(tmp_path / "bone.nii.gz").get_fdata(), ct > 250)
    assert (tmp_path / "bone.png").stat().st_size > 10_000
    assert "orientation: repaired (turned from RAS to LPS" in completed.stdout
