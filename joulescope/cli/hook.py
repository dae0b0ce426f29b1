"""``joulescope hook``: the half that runs inside vLLM, put where an image that lacks it finds it."""

from __future__ import annotations

from pathlib import Path

import click

from joulescope.hook_install import install as install_hook


@click.group()
def command() -> None:
    """Put the hook where a vLLM image that has no joulescope finds it."""


@command.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "--lenient",
    is_flag=True,
    help="If it fails, say so and end with 0: an init container that fails keeps vLLM from starting.",
)
def install(folder: Path, lenient: bool) -> None:
    """Copy the hook into DIR; vLLM finds it there with PYTHONPATH=DIR, whatever its Python from 3.10 on.

    DIR is made if it is missing; a copy of another version in it is replaced. The copy is pure Python and
    needs nothing that vLLM does not bring.
    """
    try:
        done = install_hook(folder)
    except Exception as error:  # lenient: a defect of ours is no reason for vLLM not to start, either
        if not lenient:
            raise
        click.echo(f"joulescope: {error}; vLLM will run without the hook", err=True)
        return
    instead = f" in place of {', '.join(done.replaced)}" if done.replaced else ""
    verb = "is now" if done.changed else "was already"
    click.echo(f"joulescope {done.version} {verb} in {folder}{instead}: PYTHONPATH={folder.absolute()}")
