"""All that a plugin author imports: the hook marker, the hook specifications, and what a provider must offer."""

from innereye_core.contract.marker import GROUP, hookimpl

__all__ = ["GROUP", "hookimpl"]
