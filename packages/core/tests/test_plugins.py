"""How plugins are found, allowed, blocked and checked when they are loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from innereye_core.errors import MissingPluginError
from innereye_core.plugins import InstalledPlugin, PluginModule, discover, load_plugins

Install = Callable[..., str]

POLICY = """
    from innereye_core import hookimpl

    class First:
        name = "{name}"
        needs_scores = False

        def choose(self, candidates):
            return candidates[0].epoch

    @hookimpl
    def innereye_policies():
        return [First]
"""


def installed() -> dict[str, InstalledPlugin]:
    return {plugin.name: plugin for plugin in load_plugins()[1]}


# --- found ------------------------------------------------------------------------------------------------------------


def test_core_is_a_plugin_like_any_other() -> None:
    core = installed()["core"]

    assert (core.distribution, core.blocked) == ("innereye-core", False)
    assert "innereye_policies" in core.hooks


def test_plugin_is_found_with_its_distribution_version_and_hooks(install: Install) -> None:
    install("acme", POLICY.format(name="first"))
    assert installed()["acme"] == InstalledPlugin("acme", "acme-innereye", "1.0", ("innereye_policies",), False)


def test_plugins_come_in_the_order_of_their_names_after_core(install: Install) -> None:
    for name in ("zeta", "alpha", "beta"):
        install(name, POLICY.format(name=name))
    loaded = [plugin.name for plugin in load_plugins()[1] if not plugin.blocked]
    assert loaded == ["core", "alpha", "beta", "zeta"]


def test_tests_do_not_see_the_plugins_that_happen_to_be_installed() -> None:
    assert [plugin.name for plugin in load_plugins()[1] if not plugin.blocked] == ["core"]


def test_plugins_named_by_module_path_need_no_entry_point(install: Install) -> None:
    module = install("acme", POLICY.format(name="first"), allowed=False)

    manager, _ = load_plugins([PluginModule("packaged", module)])

    assert manager.get_plugin("packaged").__name__ == module


def test_module_path_that_cannot_be_imported() -> None:
    with pytest.raises(MissingPluginError, match=r"plugin 'gone' of no_such_module cannot be imported: ModuleNotFound"):
        load_plugins([PluginModule("gone", "no_such_module")])


# --- allowed and blocked ----------------------------------------------------------------------------------------------


def test_empty_allow_list_loads_none_but_core(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", "raise RuntimeError('imported')", allowed=False)
    monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", "")

    assert installed()["acme"] == InstalledPlugin("acme", "acme-innereye", "1.0", (), True)


def test_allow_list_loads_only_what_it_names(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", POLICY.format(name="a"))
    install("other", "raise RuntimeError('imported')", allowed=False)
    monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", " acme ,")

    assert {name: plugin.blocked for name, plugin in installed().items() if name in ("acme", "other")} == {
        "acme": False,
        "other": True,
    }


def test_allow_list_may_name_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", "core")
    assert not installed()["core"].blocked


def test_allow_list_with_a_name_that_is_not_installed(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", POLICY.format(name="a"))
    monkeypatch.setenv("INNEREYE_LOAD_PLUGINS", "acme,acne")

    with pytest.raises(MissingPluginError, match=r"INNEREYE_LOAD_PLUGINS names 'acne', .* installed are: .*acme"):
        load_plugins()


def test_no_allow_list_loads_all(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", POLICY.format(name="a"), allowed=False)
    monkeypatch.delenv("INNEREYE_LOAD_PLUGINS")
    names = [point.name for point in discover() if point.name != "acme"]
    monkeypatch.setenv("INNEREYE_DISABLED_PLUGINS", ",".join(names))

    assert not installed()["acme"].blocked


def test_block_list_wins_over_the_allow_list(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("acme", "raise RuntimeError('imported')")
    monkeypatch.setenv("INNEREYE_DISABLED_PLUGINS", "acme")

    assert installed()["acme"].blocked


def test_block_list_may_name_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_DISABLED_PLUGINS", "gone")
    assert "core" in installed()


def test_core_cannot_be_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNEREYE_DISABLED_PLUGINS", "core")
    with pytest.raises(MissingPluginError, match=r"INNEREYE_DISABLED_PLUGINS names 'core'"):
        load_plugins()


# --- refused ----------------------------------------------------------------------------------------------------------


def test_two_distributions_with_a_plugin_of_one_name(install: Install) -> None:
    install("acme", POLICY.format(name="a"), distribution="acme-one")
    install("acme", POLICY.format(name="b"), distribution="acme-two", allowed=False)

    with pytest.raises(
        MissingPluginError, match=r"plugin name 'acme' is offered by acme-\w+ and acme-\w+; uninstall"
    ) as caught:
        load_plugins()

    assert "acme-one" in str(caught.value)
    assert "acme-two" in str(caught.value)


def test_plugin_that_calls_itself_core(install: Install) -> None:
    install("core", POLICY.format(name="a"), distribution="acme-core", allowed=False)
    with pytest.raises(MissingPluginError, match=r"plugin name 'core' is offered by acme-core and innereye-core"):
        load_plugins()


def test_one_module_under_two_names(install: Install) -> None:
    module = install("acme", POLICY.format(name="a"))
    install("twin", "", point=module)

    with pytest.raises(MissingPluginError, match=r"plugin 'twin' of twin-innereye: .*already registered"):
        load_plugins()


def test_misspelt_hook(install: Install) -> None:
    install("acme", "from innereye_core import hookimpl\n@hookimpl\ndef innereye_policy():\n    return []\n")
    with pytest.raises(
        MissingPluginError, match=r"plugin 'acme' of acme-innereye: .*unknown hook 'innereye_policy'"
    ) as caught:
        load_plugins()

    assert "\n" not in str(caught.value)


def test_misspelt_argument(install: Install) -> None:
    source = "from innereye_core import hookimpl\n@hookimpl\ndef innereye_after_package(pakage):\n    pass\n"
    install("acme", source)
    with pytest.raises(
        MissingPluginError, match=r"plugin 'acme' of acme-innereye: .*innereye_after_package.*pakage"
    ) as caught:
        load_plugins()

    assert "\n" not in str(caught.value)


def test_hook_function_without_the_marker(install: Install) -> None:
    install("acme", "def innereye_policies():\n    return []\n")
    with pytest.raises(
        MissingPluginError, match=r"'acme' of acme-innereye: innereye_policies is not marked with @hookimpl"
    ):
        load_plugins()


def test_plugin_that_cannot_be_imported(install: Install) -> None:
    install("acme", "import a_library_that_is_not_there")
    with pytest.raises(
        MissingPluginError,
        match=r"plugin 'acme' of acme-innereye cannot be imported: ModuleNotFoundError: .*a_library_that_is_not_there.*"
        r"INNEREYE_DISABLED_PLUGINS=acme$",
    ):
        load_plugins()


def test_entry_point_that_names_more_than_a_module(install: Install) -> None:
    install("acme", POLICY.format(name="a"), point="acme_innereye_plugin:First")
    with pytest.raises(
        MissingPluginError, match=r"plugin 'acme' .*'acme_innereye_plugin:First' must name a module alone"
    ):
        load_plugins()


def test_entry_point_without_its_module(install: Install) -> None:
    install("acme", "", point="acme_gone.plugin")
    with pytest.raises(MissingPluginError, match=r"plugin 'acme' .* cannot be imported: .*acme_gone"):
        load_plugins()
