"""The name under which plugins are found, and the decorator that marks their hook implementations."""

import pluggy

GROUP = "innereye"
"""Entry-point group, and pluggy project name."""

hookimpl = pluggy.HookimplMarker(GROUP)
hookspec = pluggy.HookspecMarker(GROUP)
