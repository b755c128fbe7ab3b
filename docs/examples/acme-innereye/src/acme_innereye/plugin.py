"""ACME's hook implementations. Providers are imported only when core asks for them."""

from innereye_core import hookimpl


@hookimpl
def innereye_policies():
    from acme_innereye.policy import WorstStructure

    return [WorstStructure]


@hookimpl
def innereye_environment_mergers():
    from acme_innereye.merger import LastFile

    return [LastFile]


@hookimpl
def innereye_packagers():
    from acme_innereye.packager import WithNotice

    return [WithNotice]


@hookimpl
def innereye_registries():
    from acme_innereye.registry import Shelf

    return [Shelf]
