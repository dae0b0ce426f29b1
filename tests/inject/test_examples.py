"""Manifests in the shape of well-known ones, with joulescope and without."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from joulescope.inject.documents import inject_text, remove_text
from joulescope.inject.kinds import PodTemplate, documents_of, templates_of
from joulescope.inject.pod import INSTALLER, SIDECAR, Injection
from tests.kubernetes import VERSIONS, pod_errors, restricted_errors, schema_errors

EXAMPLES = sorted((Path(__file__).parents[2] / "deploy" / "examples").glob("*.yaml"))
GOLDEN = Path(__file__).with_name("golden")
INJECTION = Injection("registry.example/joulescope:0.1.0")


@cache
def injected(path: Path) -> str:
    return inject_text(path.read_text(), INJECTION).text


def pod_templates(text: str) -> Iterator[PodTemplate]:
    for document in yaml.safe_load_all(text):
        if document is not None:
            for single in documents_of(document):
                yield from (each for each in templates_of(single) if isinstance(each, PodTemplate))


@pytest.fixture(params=EXAMPLES, ids=lambda path: path.stem)
def example(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def test_what_is_added_is_what_was_reviewed(example: Path) -> None:
    """The difference to the original, line by line. UPDATE_GOLDEN=1 writes it anew, to be read again."""
    lines = difflib.unified_diff(
        example.read_text().splitlines(keepends=True), injected(example).splitlines(keepends=True), n=1
    )
    said = inject_text(example.read_text(), INJECTION)
    found = "".join([*(f"# {each}\n" for each in (*said.changed, *said.notes)), *lines])
    golden = GOLDEN / f"{example.stem}.diff"
    if os.environ.get("UPDATE_GOLDEN"):
        golden.write_text(found)
    assert found == golden.read_text()


def test_twice_is_the_same_as_once(example: Path) -> None:
    """And three times too."""
    once = injected(example)
    assert inject_text(once, INJECTION).text == once


def test_taken_out_it_means_what_it_meant(example: Path) -> None:
    """Long lines may be broken otherwise; what they say is what they said."""
    back = remove_text(injected(example)).text
    assert list(yaml.safe_load_all(back)) == list(yaml.safe_load_all(example.read_text()))


def test_comments_stay(example: Path) -> None:
    """What people wrote is not lost."""
    comments = [line.split("#", 1)[1] for line in example.read_text().splitlines() if "#" in line]
    assert comments
    assert all(comment in injected(example) for comment in comments)


@pytest.mark.parametrize("version", VERSIONS)
def test_schemas_of_kubernetes_have_nothing_against_it(example: Path, version: str) -> None:
    """Documents of Kubernetes' own kinds as they are; of others the pod specs, where they are whole."""
    for document in yaml.safe_load_all(injected(example)):
        if document is None:
            continue
        try:
            assert schema_errors(document, version) == []
        except kubernetes_validate.SchemaNotFoundError:
            for template in pod_templates(yaml.safe_dump(document)):
                ours = {
                    "containers": [{"name": "vllm", "image": "vllm"}],
                    **_of_pod_alone(dict(template.spec)),
                }
                assert pod_errors(ours, version) == []


def _of_pod_alone(spec: dict[str, Any]) -> dict[str, Any]:
    """Without what is KServe's own in it, and containers that have no image yet."""
    kept = {"initContainers", "volumes", "securityContext"}
    return {key: value for key, value in spec.items() if key in kept}


def test_pod_security_has_nothing_against_what_was_added(example: Path) -> None:
    """Whatever it has against the rest: our containers, our volumes, no field of the pod."""
    for template in pod_templates(injected(example)):
        spec = dict(template.spec)
        ours = [each for each in spec.get("initContainers") or () if each["name"] in (SIDECAR, INSTALLER)]
        volumes = [each for each in spec.get("volumes") or () if each["name"].startswith("joulescope")]
        assert restricted_errors({"spec": {"initContainers": ours, "volumes": volumes}}) == []


def test_every_example_has_a_vllm() -> None:
    """Else the checks above would say nothing."""
    assert len(EXAMPLES) >= 5
    for example in EXAMPLES:
        assert inject_text(example.read_text(), INJECTION).changed, example
