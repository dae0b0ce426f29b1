"""Files of manifests, as people and tools write them."""

from __future__ import annotations

import json
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


def test_what_items_of_a_list_share_is_changed_in_each_once() -> None:
    """The items have one spec between them; each gets joulescope, and none gets it twice."""
    text = """\
kind: List
items:
- kind: Pod
  metadata: {name: a}
  spec: &spec
    containers:
    - {name: vllm, image: vllm/vllm-openai}
- kind: Pod
  metadata: {name: b}
  spec: *spec
"""
    result = inject_text(text, Injection())
    assert len(result.changed) == 2
    first, second = (each["spec"] for each in yaml.safe_load(result.text)["items"])
    assert first == second
    assert [each["name"] for each in first["initContainers"]] == ["joulescope-hook", "joulescope"]
    assert inject_text(result.text, Injection()).text == result.text


_DOUBLED = "\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40))])


def test_aliases_that_unfold_without_end_are_an_error() -> None:
    """Forty lines of these mean a million million parts."""
    with pytest.raises(ConfigError, match="standard input: aliases of YAML"):
        inject_text(f"kind: Pod\nspec: {{containers: [{{name: vllm}}]}}\n{_DOUBLED}\n", Injection())


@pytest.mark.parametrize("text", ["a: [", "a: b: c", "\tkind: Pod", "a: *unknown", "a: 1\na: 2\n", "[" * 700])
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


@pytest.mark.parametrize(
    "text",
    [
        POD.replace("\n", "\r\n"),
        "\ufeff" + POD,
        "%YAML 1.1\n---\n" + POD,
        "%YAML 1.1\n# a comment\n---\n" + POD,
    ],
    ids=["crlf", "bom", "directive", "directive-and-comment"],
)
def test_in_and_out_is_the_same_to_the_byte_in_files_of_windows_and_of_tools(
    text: str, tmp_path: Path
) -> None:
    """Ends of lines, byte order mark and directives stay, through files too."""
    put = inject_text(text, Injection())
    assert put.changed == ["Pod/a"]
    assert remove_text(put.text).text == text
    (tmp_path / "a.yaml").write_bytes(text.encode())
    for more in ([], ["--remove"]):
        CliRunner().invoke(command, ["-f", str(tmp_path), "--in-place", *more], catch_exceptions=False)
        changed = (tmp_path / "a.yaml").read_bytes()
        assert changed.count(b"\r") == (changed.count(b"\n") if "\r" in text else 0)
    assert changed == text.encode()


def test_json_stays_json() -> None:
    """Readers that go by the brace in front do not read it as YAML."""
    listed = {"kind": "List", "items": [yaml.safe_load(POD)]}
    text = json.dumps(listed, indent=4) + "\n"
    put = inject_text(text, Injection()).text
    (pod,) = json.loads(put)["items"]
    assert pod["metadata"]["labels"] == {"joulescope/scrape": "true"}
    assert remove_text(put).text == text


@pytest.mark.parametrize(
    "value", ["yes", "on", "N", "Off", "12:30:45", "0777", "0b11", "1_000", "null", "1e3"]
)
def test_variables_are_texts_for_readers_of_yaml_1_1(value: str) -> None:
    """kubectl is one, and a cluster refuses a variable that is no text."""
    document = yaml.safe_load(inject_text(POD, Injection(env={"A": value})).text)
    told = {each["name"]: each.get("value") for each in document["spec"]["initContainers"][1]["env"]}
    assert told["A"] == value


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ("spec: {containers: {name: vllm}}", "Pod/a: containers is not a list of mappings"),
        ("spec: {containers: [null, {name: vllm}]}", "Pod/a: containers is not a list of mappings"),
        ("spec: {containers: [{name: vllm, env: [A=b]}]}", "Pod/a: container vllm: env is not a list"),
        ("spec: {containers: [{name: vllm, env: {A: b}}]}", "Pod/a: container vllm: env is not a list"),
        ("spec: {containers: [{name: vllm, ports: [8000]}]}", "Pod/a: container vllm: ports is not a list"),
        ("spec: {containers: [{name: vllm, resources: big}]}", "container vllm: resources is not a mapping"),
        ("spec: {containers: [{name: vllm}], volumes: [a]}", "Pod/a: volumes is not a list of mappings"),
        ("spec: {containers: [{name: vllm}], securityContext: a}", "Pod/a: securityContext is not a mapping"),
    ],
)
def test_parts_of_a_wrong_shape_are_named(odd: str, said: str) -> None:
    """Putting in and taking out."""
    text = f"kind: Pod\nmetadata: {{name: a}}\n{odd}\n"
    for act in (lambda: inject_text(text, Injection()), lambda: remove_text(text)):
        with pytest.raises(ConfigError, match=said):
            act()


def test_metadata_and_groups_of_a_wrong_shape() -> None:
    """Of what is no pod, too."""
    with pytest.raises(ConfigError, match="metadata is not a mapping"):
        inject_text(POD.replace("metadata:\n  name: a  # mine", "metadata: a"), Injection())
    odd = "kind: RayCluster\nmetadata: a\nspec: {workerGroupSpecs: 3}\n"
    assert inject_text(odd, Injection()).text == odd


def test_standard_input_that_is_no_text_is_an_error() -> None:
    """A file in another encoding, an archive."""
    result = CliRunner().invoke(command, [], input=b"\xff\xfe\x00")
    assert isinstance(result.exception, ConfigError)
    assert "cannot read standard input: it is not UTF-8" in str(result.exception)


def test_models_that_are_not_vllms_are_left_alone() -> None:
    """An InferenceService of KServe may be of any kind of model."""
    text = "kind: InferenceService\nspec: {predictor: {model: {modelFormat: {name: %s}}}}\n"
    assert not inject_text(text % "sklearn", Injection()).changed
    assert inject_text(text % "huggingface", Injection()).changed
