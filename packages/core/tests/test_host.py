"""The façade over the hooks: every hook is reached, providers are checked, and what plugins do wrong names them."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from innereye_core.contract import hookspecs
from innereye_core.errors import InputError, MissingPluginError, UsageError
from innereye_core.host import Host
from innereye_core.model import (
    EnvironmentFile,
    Manifest,
    Package,
    PlannedFile,
    RegisteredModel,
    Run,
    RunRecord,
    ToolboxSource,
)

Install = Callable[..., str]

HOOKS = sorted(name for name, value in vars(hookspecs).items() if hasattr(value, "innereye_spec"))

RUN = Run("r1", "run", Path("run"), "local")
PACKAGE = Package(
    Path("final_model"), Manifest("final_model", "Toy", "", (), (), {}, RunRecord("r1", "run", "local"), ())
)
MODEL = RegisteredModel("Toy", 1, "local", "final_model", "", {}, {}, "")

PROVIDER = """
    from innereye_core import hookimpl

    class Everything:
        name = "acme"
        def accepts(self, jobs):
            return jobs == self.name
        def __getattr__(self, attribute):
            return 0

    @hookimpl
    def {hook}():
        return [Everything()]
"""


def offering(hook: str, provider: str = "acme", header: str = "") -> str:
    return PROVIDER.format(hook=hook).replace('"acme"', repr(provider)) + header


# --- every hook is reached --------------------------------------------------------------------------------------------


def names(providers) -> list[str]:
    return [provider.name for provider in providers]


COLLECTED = {
    "innereye_run_sources": lambda host: "acme" in names(host.run_sources()),
    "innereye_checkpoint_formats": lambda host: "acme" in names(host.checkpoint_formats()),
    "innereye_evaluators": lambda host: "acme" in names(host.evaluators()),
    "innereye_image_formats": lambda host: "acme" in names(host.image_formats()),
    "innereye_runtimes": lambda host: "acme" in names(host.runtimes()),
    "innereye_exporters": lambda host: "acme" in names(host.exporters()),
    "innereye_executors": lambda host: host.executor("acme").name == "acme",
    "innereye_policies": lambda host: host.policy("acme").name == "acme",
    "innereye_environment_mergers": lambda host: host.environment_merger("acme").name == "acme",
    "innereye_packagers": lambda host: host.packager("acme").name == "acme",
    "innereye_registries": lambda host: host.registry("acme").name == "acme" and "acme" in names(host.registries()),
    "innereye_scorers": lambda host: host.scorer().name == "acme",
}
"""Hooks that return named providers: how the façade gives the provider "acme"."""

ADDED = {
    "innereye_environment_files": (
        "(run):\n    from innereye_core.model import EnvironmentFile\n    from pathlib import Path\n"
        "    return [EnvironmentFile(Path(run.id), 250)]",
        lambda host: host.environment_files(RUN) == [EnvironmentFile(Path("r1"), 250)],
    ),
    "innereye_toolbox_sources": (
        "():\n    from innereye_core.model import ToolboxSource\n    from pathlib import Path\n"
        "    return [ToolboxSource('Plugins', 'acme', Path('acme'), 'acme', '1')]",
        lambda host: ToolboxSource("Plugins", "acme", Path("acme"), "acme", "1") in host.toolbox_sources(),
    ),
    "innereye_package_files": (
        "(plan):\n    from innereye_core.model import PlannedFile\n    return [PlannedFile(plan, 'notice')]",
        lambda host: host.package_files("the plan") == [PlannedFile("the plan", "notice")],
    ),
    "innereye_commands": ("(commands):\n    commands.append('acme')", lambda host: calls(host.commands, [])),
    "innereye_after_package": (
        "(package):\n    CALLS.append(package)",
        lambda host: host.after_package(PACKAGE) is None and seen_by("acme") == [PACKAGE],
    ),
    "innereye_after_registration": (
        "(model, package):\n    CALLS.append((model, package))",
        lambda host: host.after_registration(MODEL, PACKAGE) is None and seen_by("acme") == [(MODEL, PACKAGE)],
    ),
}
"""Hooks that add or observe: an implementation, and whether the façade reaches it."""


def calls(method: Callable[[list[str]], None], argument: list[str]) -> bool:
    method(argument)
    return argument == ["acme"]


def seen_by(plugin: str) -> list[object]:
    import importlib

    found: list[object] = importlib.import_module(f"{plugin}_innereye_plugin").CALLS
    return found


def test_every_hook_has_a_test_here() -> None:
    assert sorted({*COLLECTED, *ADDED}) == HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_hook_is_documented(hook: str) -> None:
    assert inspect.getdoc(getattr(hookspecs, hook))


@pytest.mark.parametrize("hook", sorted(COLLECTED))
def test_providers_of_a_hook_are_reached(install: Install, hook: str) -> None:
    install("acme", offering(hook))
    assert COLLECTED[hook](Host())


@pytest.mark.parametrize("hook", sorted(ADDED))
def test_implementation_of_a_hook_is_called(install: Install, hook: str) -> None:
    body, reached = ADDED[hook]
    install("acme", f"from innereye_core import hookimpl\nCALLS = []\n\n@hookimpl\ndef {hook}{body}\n")

    assert reached(Host())


# --- providers --------------------------------------------------------------------------------------------------------


def test_provider_may_be_a_class_or_an_object(install: Install) -> None:
    install(
        "acme",
        """
        from innereye_core import hookimpl

        class First:
            needs_scores = False
            def __init__(self, name="as-class"):
                self.name = name
            def choose(self, candidates):
                return 1

        @hookimpl
        def innereye_policies():
            return [First, First("as-object")]
        """,
    )
    host = Host()
    assert (host.policy("as-class").name, host.policy("as-object").name) == ("as-class", "as-object")


def test_providers_come_in_the_order_of_plugin_names_with_cores_last(install: Install) -> None:
    for name in ("zeta", "alpha"):
        install(name, offering("innereye_registries", name))
    assert names(Host().registries()) == ["alpha", "zeta", "local"]


def test_evaluators_are_asked_by_priority(install: Install) -> None:
    for name, priority in (("alpha", -5), ("beta", 500)):
        install(name, offering("innereye_evaluators", name).replace("name =", f"priority = {priority}; name ="))
    assert names(Host().evaluators()) == ["beta", "metrics-csv", "alpha"]


def test_implementations_that_add_are_called_in_the_order_of_plugin_names(install: Install) -> None:
    for name in ("zeta", "alpha", "mid"):
        body = f"def innereye_package_files(plan):\n    return [PlannedFile('{name}', 'x')]\n"
        imports = "from innereye_core import hookimpl\nfrom innereye_core.model import PlannedFile\n"
        install(name, f"{imports}@hookimpl\n{body}")
    assert [file.path for file in Host().package_files("plan")] == ["alpha", "mid", "zeta"]


def test_implementation_may_leave_out_arguments(install: Install) -> None:
    source = "from innereye_core import hookimpl\nCALLS = []\n@hookimpl\ndef innereye_after_registration(model):\n"
    install("acme", source + "    CALLS.append(model)\n")

    Host().after_registration(MODEL, PACKAGE)

    assert seen_by("acme") == [MODEL]


def test_implementation_may_return_nothing(install: Install) -> None:
    install("acme", "from innereye_core import hookimpl\n@hookimpl\ndef innereye_policies():\n    pass\n")
    assert Host().policy("last").name == "last"


def test_two_plugins_that_offer_one_name(install: Install) -> None:
    install("acme", offering("innereye_policies", "best"))
    install("zeta", offering("innereye_policies", "best"))

    with pytest.raises(
        MissingPluginError, match=r"innereye_policies: 'best' is offered by the plugins 'acme' and 'zeta'"
    ):
        Host().policy("last")


def test_plugin_that_offers_a_name_of_core(install: Install) -> None:
    install("acme", offering("innereye_registries", "local"))

    with pytest.raises(MissingPluginError, match=r"'local' is offered by the plugins 'acme' and 'core'"):
        Host().registry("local")


def test_two_plugins_may_offer_one_name_to_different_hooks(install: Install) -> None:
    install("acme", offering("innereye_policies", "ours"))
    install("zeta", offering("innereye_registries", "ours"))
    host = Host()
    assert (host.policy("ours").name, host.registry("ours").name) == ("ours", "ours")


# --- what plugins do wrong --------------------------------------------------------------------------------------------


def policy_plugin(install: Install, body: str) -> Host:
    install("acme", f"from innereye_core import hookimpl\n{body}")
    return Host()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            "class P:\n    name = 'p'\n@hookimpl\ndef innereye_policies():\n    return [P]\n",
            r"plugin 'acme': innereye_policies returned P without choose, needs_scores; see .*SelectionPolicy",
        ),
        (
            "@hookimpl\ndef innereye_policies():\n    return ['best']\n",
            r"plugin 'acme': innereye_policies returned str without choose, name, needs_scores",
        ),
        (
            "class P:\n    name = 'p'\n@hookimpl\ndef innereye_policies():\n    return P\n",
            r"plugin 'acme': innereye_policies must return a list, not <class",
        ),
        (
            "class P:\n    def __init__(self, size): pass\n@hookimpl\ndef innereye_policies():\n    return [P]\n",
            r"plugin 'acme' failed in innereye_policies: TypeError: .*'size'",
        ),
        (
            "@hookimpl\ndef innereye_policies():\n    import gone_library\n",
            r"plugin 'acme' failed in innereye_policies: ModuleNotFoundError: .*gone_library.*INNEREYE_DISABLED",
        ),
    ],
    ids=["missing methods", "no provider at all", "no list", "arguments to make it", "import inside the hook"],
)
def test_useless_provider_names_its_plugin(install: Install, body: str, message: str) -> None:
    host = policy_plugin(install, body)
    with pytest.raises(MissingPluginError, match=message):
        host.policy("last")


def test_error_that_a_plugin_raises_on_purpose_stays_what_it_is(install: Install) -> None:
    source = "from innereye_core import hookimpl\nfrom innereye_core.errors import InputError\n"
    source += "@hookimpl\ndef innereye_environment_files(run):\n    raise InputError('base.yml: no such file')\n"
    install("acme", source)

    with pytest.raises(InputError, match=r"^base\.yml: no such file$"):
        Host().environment_files(RUN)


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (
            lambda host: host.policy("bset"),
            "there is no selection policy 'bset'; there are: best_validation_dice, epoch, last",
        ),
        (lambda host: host.packager("zip"), "there is no packager 'zip'; there are: innereye"),
        (lambda host: host.registry("mlflow"), "there is no registry 'mlflow'; there are: local"),
        (lambda host: host.environment_merger("pip"), "there is no merge strategy 'pip'; there are: conda-merge"),
    ],
    ids=["policy", "packager", "registry", "merger"],
)
def test_unknown_name_lists_the_known_ones(ask: Callable[[Host], object], message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        ask(Host())


def test_registry_that_the_project_offers_elsewhere_names_its_distribution() -> None:
    with pytest.raises(MissingPluginError, match=r"registry 'azureml' is not installed: pip install innereye-azureml"):
        Host().registry("azureml")


def test_scoring_without_a_scorer_names_the_packages() -> None:
    with pytest.raises(MissingPluginError, match=r"pip install innereye-imaging innereye-segmentation$"):
        Host().scorer()


SCORER = """
from innereye_core import hookimpl

class Scorer:
    name = {name!r}

    def score(self, request, providers, progress): ...

@hookimpl
def innereye_scorers():
    return [Scorer]
"""


def test_scorer_of_a_plugin_replaces_the_default_and_this_is_said(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("pictures", SCORER.format(name="images"))
    install("zeta", SCORER.format(name="faster"))
    with caplog.at_level(logging.WARNING):
        assert Host().scorer().name == "faster"
    assert "scoring with 'faster' instead of 'images'" in caplog.text


def test_two_scorers_that_replace_the_default_are_refused(install: Install) -> None:
    for plugin in ("alpha", "pictures", "zeta"):
        install(plugin, SCORER.format(name="images" if plugin == "pictures" else plugin))
    with pytest.raises(UsageError, match="'alpha' and 'zeta'"):
        Host().scorer()


# --- observers --------------------------------------------------------------------------------------------------------


def test_observer_that_fails_is_a_warning_and_the_others_are_still_called(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    observer = "from innereye_core import hookimpl\nCALLS = []\n@hookimpl\ndef innereye_after_package(package):\n"
    install("alpha", observer + "    raise ValueError('no network')\n")
    install("beta", observer + "    CALLS.append(package)\n")
    host = Host()

    with caplog.at_level(logging.WARNING):
        host.after_package(PACKAGE)

    assert host.failed_observers == ["alpha: innereye_after_package"]
    assert "plugin 'alpha' failed in innereye_after_package: ValueError: no network" in caplog.text
    assert seen_by("beta") == [PACKAGE]
