"""Segments a patient's images with the model in whose folder this file lies.

    python score.py [IMAGE ...] [options]

IMAGE is one file per image channel, in the order of model_inference_config.json.

  --output FILE             where to write the segmentation
  --overwrite               replace existing outputs
  --mask FILE               image outside of which (where it is 0) all is background
  --posteriors FILE|FOLDER/ also write the class probabilities: 4-D NIfTI, or a file per structure
  --uncertainty FILE        also write the entropy of the class probabilities
  --statistics FILE         also write numbers per structure, as .json or .csv; may be repeated
  --preview FILE            also write a picture, as .png
  --report FILE             also write a report to read, as .html
  --device auto|cpu|cuda    where to compute (default: auto)
  --runtime NAME            what evaluates the network (default: auto)
  --precision fp32|fp16|bf16  what it computes in (default: fp32)
  --json                    print the result as JSON

Options of InnerEye's score.py, with its defaults and meaning:

  --data_folder DIR         where the images are (default: the current folder)
  --image_files A,B         images in that folder (default: test.nii.gz)
  --model_folder DIR        the package (default: the folder of this file)
  --result_image_name NAME  written into the model folder (default: segmentation.nii.gz)
  --use_gpu BOOL            False computes on the CPU (default: True)
  --use_dicom BOOL          input is one zip with a DICOM series (default: False)
  --result_zip_dicom_name NAME
  --model_id ID             goes into the DICOM output

Only the code in the package is used, never an installed copy of it; the packages of environment.yml must be installed.

The same file is the scoring script of AzureML's online and batch endpoints, which call its init() and run().
"""

import os
import sys
from pathlib import Path
from typing import Any


def use_only(folder: Path) -> None:
    """Let imports find the package's own copy of the toolbox first, and nothing else that lies in the folder."""
    sys.dont_write_bytecode = True
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    sys.path[:0] = [str(folder / "InnerEye" / section) for section in ("Common", "ML", "Azure", "Plugins")]


def main() -> None:
    """Score with the package beside this file."""
    folder = Path(__file__).resolve().parent
    if not (folder / "manifest.json").is_file():
        if "--help" in sys.argv[1:]:
            print(__doc__)
            return
        print(
            f"error: {folder}: score.py belongs in a package (final_model/), which 'innereye package' makes; "
            "to score with an installed toolbox, use 'innereye score'",
            file=sys.stderr,
        )
        sys.exit(2)
    use_only(folder)
    from innereye_core.cli.packaged import main as score

    score(folder)


# --- an endpoint of AzureML -------------------------------------------------------------------------------------------

_endpoint: Any = None


def init() -> None:
    """Load the model, once for all requests: AzureML calls this when the endpoint starts."""
    global _endpoint
    folder = mounted_package()
    use_only(folder)
    from innereye_core.endpoint import open_endpoint

    _endpoint = open_endpoint(folder)


def run(data: Any) -> Any:
    """Answer one request (online), or segment the images with the paths in a list (batch): AzureML calls this."""
    if _endpoint is None:
        raise RuntimeError("no model is loaded; call init() before run()")
    return _endpoint.run(data)


def mounted_package() -> Path:
    """The package at AZUREML_MODEL_DIR, or up to three folders below (NAME/VERSION/final_model); else the one here."""
    mounted = os.environ.get("AZUREML_MODEL_DIR")
    root = Path(mounted or Path(__file__).parent).resolve()
    manifests = [path for level in ("", "*/", "*/*/", "*/*/*/") for path in root.glob(f"{level}manifest.json")]
    found = sorted(path.parent for path in manifests if (path.parent / "InnerEye").is_dir())
    if root in found or not mounted:
        found = [folder for folder in found if folder == root]
    if len(found) == 1:
        return found[0]
    where = f"AZUREML_MODEL_DIR {root}" if mounted else f"{root}, the folder of score.py"
    names = f"{len(found)} packages ({', '.join(map(str, found))})" if found else "no package (final_model/)"
    raise RuntimeError(f"{where}: holds {names}; let AZUREML_MODEL_DIR name a folder that holds one")


# The server of online endpoints hands over a request's body as text, which an image is not, unless it is told that
# run() wants the request itself. Nothing is imported for that: where the server loads this file, it is there.
if _server := sys.modules.get("azureml_inference_server_http.api.aml_request"):
    _server.rawhttp(run)

if __name__ == "__main__":
    main()
