"""Files of manifests, as people and tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from joulescope.cli.inject import command
from joulescope.errors import ConfigError
from joulescope.inject.documents import inject_text, remove_text
from joulescope.inject.pod import Injection

POD = """\
apiVersion: v1
kind: Pod
metadata:
  name: a  # mine
spec:
  containers:
  - name: vllm
    image: vllm/vllm-openai
    args: [serve]
"""
SERVICE = "apiVersion: v1\nkind:   Service   # aligned by hand\nmetadata: {name: b}\n"


def test_documents_without_vllm_are_handed_through_to_the_byte() -> None:
    """Whatever their form; empty ones and comments between them too."""
    text = f"# head\n---\n{SERVICE}---\n# nothing here\n---\n"
    result = inject_text(text, Injection())
    assert (result.text, result.changed) == (text, [])
    mixed = inject_text(text + POD, Injection())
    assert mixed.text.startswith(text)
    assert mixed.changed == ["Pod/a"]


def test_what_was_put_in_comes_out_to_the_byte() -> None:
    """Where lists and quotes are in one style."""
    assert remove_text(inject_text(POD, Injection()).text).text == POD


def test_json_is_yaml() -> None:
    """Tools write that."""
    text = '{"kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "vllm"}]}}\n'
    document = yaml.safe_load(inject_text(text, Injection()).text)
    assert document["spec"]["initContainers"][1]["name"] == "joulescope"


def test_lists_of_documents_are_looked_into() -> None:
    """As kubectl get -o yaml prints them."""
    listed = yaml.safe_dump({"kind": "List", "items": [yaml.safe_load(POD), yaml.safe_load(SERVICE)]})
    assert inject_text(listed, Injection()).changed == ["Pod/a"]


def test_what_two_places_share_by_an_alias_is_changed_in_one() -> None:
    """YAML anchors: two containers with the same variables."""
    text = """\
kind: Pod
metadata: {name: a}
spec:
  containers:
  - name: vllm
    env: &env
    - name: A
      value: x
  - name: other
    env: *env
"""
    document = yaml.safe_load(inject_text(text, Injection()).text)
    first, second = document["spec"]["containers"]
    assert [each["name"] for each in first["env"]] == ["A", "PYTHONPATH", "JOULESCOPE_SOCKET"]
    assert [each["name"] for each in second["env"]] == ["A"]


@pytest.mark.parametrize(
    "text", ["a: [", "a: b: c", "\tkind: Pod", "a: *unknown", "a: 1\na: 2\n", "[" * 700]
)
def test_what_is_no_yaml_is_an_error_that_names_the_file(text: str) -> None:
    """And where in it."""
    with pytest.raises(ConfigError, match=r"^pods\.yaml is not YAML: "):
        inject_text(text, Injection(), name="pods.yaml")


@pytest.mark.parametrize(
    "text", ["", "just words\n", "- a\n- b\n", "3\n", "kind: Pod\n", "kind: Pod\nspec: 5\n"]
)
def test_what_is_no_manifest_is_handed_through(text: str) -> None:
    """It is nobody's business."""
    assert inject_text(text, Injection()).text == text


def test_the_command_reads_standard_input_as_a_post_renderer(tmp_path: Path) -> None:
    """What it has to say goes to standard error."""
    result = CliRunner().invoke(command, ["--image", "image:1"], input=POD + "---\n" + SERVICE)
    assert result.exit_code == 0
    assert "image: image:1" in result.stdout
    assert result.stdout.endswith(SERVICE)
    assert result.stderr == ""


def test_the_command_writes_files_in_place_and_takes_out_again(tmp_path: Path) -> None:
    """A folder is read whole."""
    (tmp_path / "pod.yaml").write_text(POD)
    (tmp_path / "service.yml").write_text(SERVICE)
    assert CliRunner().invoke(command, ["-f", str(tmp_path), "--in-place"]).exit_code == 0
    assert "joulescope/scrape" in (tmp_path / "pod.yaml").read_text()
    CliRunner().invoke(command, ["-f", str(tmp_path), "--in-place", "--remove"])
    assert (tmp_path / "pod.yaml").read_text() == POD
    assert (tmp_path / "service.yml").read_text() == SERVICE


def test_the_command_writes_nothing_if_one_file_cannot_be_done(tmp_path: Path) -> None:
    """All or none."""
    (tmp_path / "a.yaml").write_text(POD)
    (tmp_path / "b.yaml").write_text("a: [")
    result = CliRunner().invoke(command, ["-f", str(tmp_path), "--in-place"])
    assert isinstance(result.exception, ConfigError)
    assert (tmp_path / "a.yaml").read_text() == POD


def test_the_command_shows_a_diff_and_no_more(tmp_path: Path) -> None:
    """For a look before."""
    (tmp_path / "a.yaml").write_text(POD)
    result = CliRunner().invoke(command, ["-f", str(tmp_path / "a.yaml"), "--diff"])
    assert "+    - name: PYTHONPATH\n" in result.stdout
    assert (tmp_path / "a.yaml").read_text() == POD


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--in-place"], "needs files"),
        (["--in-place", "--diff", "-f", "x"], "choose one"),
        (["--env", "A"], "is not NAME=VALUE"),
    ],
)
def test_the_command_says_what_it_cannot_do(arguments: list[str], said: str) -> None:
    """With a usage error."""
    result = CliRunner().invoke(command, arguments, input=POD)
    assert result.exit_code == 2
    assert said in result.output


def test_the_command_names_files_that_are_not_there(tmp_path: Path) -> None:
    """Or hold nothing."""
    missing = CliRunner().invoke(command, ["-f", str(tmp_path / "none.yaml")])
    assert isinstance(missing.exception, ConfigError)
    empty = CliRunner().invoke(command, ["-f", str(tmp_path)])
    assert isinstance(empty.exception, ConfigError)
    assert "holds no .yaml" in str(empty.exception)
