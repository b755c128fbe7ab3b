"""A loopback AzureML server that the unmodified azureml-core SDK talks to; see README.md beside this file.

with serving() as azureml:
    azureml.workspace.add_run("train_1", tags={"cohort": "prostate"})
    outcome = azureml.innereye("deploy", "run", run="train_1")
    assert azureml.workspace.models("Prostate")[0].run_id == "train_1"
"""

from azureml_server.clients import Outcome
from azureml_server.faults import Fault
from azureml_server.identity import Scope
from azureml_server.models import Model
from azureml_server.runs import Run
from azureml_server.server import AzureMLServer, Recorded, serving
from azureml_server.workspace import Job, Workspace

__all__ = ["AzureMLServer", "Fault", "Job", "Model", "Outcome", "Recorded", "Run", "Scope", "Workspace", "serving"]
