"""``joulescope inject``: joulescope beside the vLLM of any Kubernetes manifest."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import click

from joulescope.errors import ConfigError
from joulescope.inject.documents import inject_text, remove_text
from joulescope.inject.pod import DEFAULT_IMAGE, GpuAccess, Injection, Resources

_STDIN = "standard input"


def _environment(_: click.Context, __: click.Parameter, pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        found[name] = value
    return found


@click.command()
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    default=["-"],
    show_default="standard input",
    help="A manifest, or a folder of them; may be given several times; - is standard input.",
)
@click.option("--image", default=DEFAULT_IMAGE, show_default=True, help="The image of joulescope.")
@click.option(
    "--pull-policy", type=click.Choice(["Always", "IfNotPresent", "Never"]), help="When it is pulled."
)
@click.option("--container", default="", help="Name of vLLM's container, where that cannot be seen.")
@click.option(
    "--gpu-access",
    type=click.Choice(["engine", "dra", "runtimeclass"]),
    default="engine",
    show_default=True,
    help="Who reads the GPUs: vLLM's container, or the sidecar by a shared claim or a runtime class.",
)
@click.option("--claim", default="", help="The pod's resource claim that has vLLM's GPUs, for dra.")
@click.option("--otlp-endpoint", default="", help="Send spans and metrics there.")
@click.option(
    "--env", multiple=True, callback=_environment, metavar="NAME=VALUE", help="A variable of the sidecar."
)
@click.option(
    "--link-secret",
    default="",
    help="For an engine over several nodes: the secret of the certificates between them. Its other nodes get "
    "a relay then.",
)
@click.option("--link-server-name", default="", help="The name in them, if it is not the head's address.")
@click.option("--link-connect", default="", help="Where the head is, if the manifest's kind does not tell.")
@click.option("--cpu-request", default=Resources.cpu_request, show_default=True)
@click.option("--memory-request", default=Resources.memory_request, show_default=True)
@click.option("--cpu-limit", default=Resources.cpu_limit, show_default=True)
@click.option("--memory-limit", default=Resources.memory_limit, show_default=True)
@click.option(
    "--guaranteed-cpu",
    default=Resources.guaranteed_cpu,
    show_default=True,
    help="Request and limit in a pod of class Guaranteed.",
)
@click.option("--remove", is_flag=True, help="Take joulescope out again.")
@click.option("--diff", "as_diff", is_flag=True, help="Show what would change, and nothing else.")
@click.option("--in-place", is_flag=True, help="Write the files anew, in place of printing.")
def command(
    files: Sequence[str], container: str, remove: bool, as_diff: bool, in_place: bool, **chosen: object
) -> None:
    """Put joulescope beside the vLLM of Kubernetes manifests.

    Reads Deployments, StatefulSets, LeaderWorkerSets, Pods, KServe's InferenceServices and others, and prints
    them with joulescope; what has no vLLM is handed through. Twice is the same as once, and a newer
    joulescope brings older injections up to date. Reads standard input, as a post-renderer of Helm.
    """
    if in_place and as_diff:
        raise click.UsageError("choose one of --diff and --in-place")
    injection = _injection(chosen)
    outputs = []
    for path, text in _inputs(files, in_place):
        name = _STDIN if path is None else str(path)
        result = remove_text(text, name) if remove else inject_text(text, injection, container, name)
        for note in result.notes:
            click.echo(f"joulescope: {note}", err=True)
        if not result.changed:
            click.echo(f"joulescope: {name}: nothing to {'remove' if remove else 'inject into'}", err=True)
        outputs.append((path, name, text, result.text))
    for path, name, before, after in outputs:  # only once all of them could be done
        if as_diff:
            click.echo(_diff(before, after, name), nl=False)
        elif in_place and path is not None:
            if after != before:
                path.write_bytes(after.encode())
        else:
            click.echo(after, nl=False)
            if len(outputs) > 1 and after and (path, name, before, after) != outputs[-1]:
                click.echo("---" if after.endswith("\n") else "\n---")


def _injection(chosen: dict[str, object]) -> Injection:
    text = {key: str(value or "") for key, value in chosen.items() if key != "env"}
    env = dict(cast("dict[str, str]", chosen["env"]))
    if text["otlp_endpoint"]:
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = text["otlp_endpoint"]
    return Injection(
        image=text["image"],
        pull_policy=text["pull_policy"],
        gpu_access=cast("GpuAccess", text["gpu_access"]),
        claim=text["claim"],
        resources=Resources(
            cpu_request=text["cpu_request"],
            memory_request=text["memory_request"],
            cpu_limit=text["cpu_limit"],
            memory_limit=text["memory_limit"],
            guaranteed_cpu=text["guaranteed_cpu"],
        ),
        env=env,
        link_secret=text["link_secret"],
        link_server_name=text["link_server_name"],
        link_connect=text["link_connect"],
    )


def _inputs(files: Sequence[str], in_place: bool) -> Iterator[tuple[Path | None, str]]:
    for each in files:
        if each == "-":
            if in_place:
                raise click.UsageError("--in-place needs files: name them with -f")
            yield None, _decoded(sys.stdin.buffer.read(), _STDIN)
            continue
        path = Path(each)
        paths = sorted(path.rglob("*.y*ml")) if path.is_dir() else [path]
        if not paths:
            raise ConfigError(f"{path} holds no .yaml or .yml file")
        for found in paths:
            try:
                data = found.read_bytes()
            except OSError as error:
                raise ConfigError(f"cannot read {found}: {error}") from error
            yield found, _decoded(data, str(found))


def _decoded(data: bytes, name: str) -> str:
    """As UTF-8 whatever the locale, and with the ends of lines that it has."""
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"cannot read {name}: it is not UTF-8: {error}") from error


def _diff(before: str, after: str, name: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), name, f"{name} with joulescope"
    )
    return "".join(line if line.endswith("\n") else f"{line}\n" for line in lines)
