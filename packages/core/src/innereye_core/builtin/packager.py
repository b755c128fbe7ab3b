"""The packager ``innereye``: writes the files of a plan where the plan says."""

from __future__ import annotations

import shutil
from pathlib import Path

from innereye_core.model import PackagePlan


class InnerEyePackager:
    """Lays out ``final_model/`` as InnerEye did: score.py, environment.yml, InnerEye/, checkpoints/, the extra code."""

    name = "innereye"

    def build(self, plan: PackagePlan, folder: Path) -> None:
        """Write every file of the plan below ``folder``."""
        for file in plan.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            if file.source is not None:
                shutil.copyfile(file.source, target)
            else:
                target.write_bytes(file.content or b"")
