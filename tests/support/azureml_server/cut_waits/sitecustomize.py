"""Loaded by Python at the start of a test's client: cuts the waits of the SDK and of the libraries below it.

The SDK has no setting for most of its waits (minutes of retries for a blob that cannot be written or read). Its code
stays as it is; only `time.sleep` is short when it is called from there.
"""

import sys
import time
from typing import Any

LIMIT_S = 0.05
IMPATIENT = ("azureml", "azure", "msrest", "urllib3")

_sleep = time.sleep


def sleep(seconds: Any, /) -> None:
    """Sleep as long as was asked, or `LIMIT_S` for the libraries in `IMPATIENT`."""
    module = str(sys._getframe(1).f_globals.get("__name__", ""))
    _sleep(min(seconds, LIMIT_S) if module.partition(".")[0] in IMPATIENT else seconds)


time.sleep = sleep
