"""Options by which a command finds a running sidecar, and is let in."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from joulescope.terminal.target import target_of

_FILE = click.Path(exists=True, dir_okay=False)

_OPTIONS = (
    click.option(
        "--url",
        default="http://127.0.0.1:5685",
        show_default=True,
        envvar="JOULESCOPE_TOP_URL",
        show_envvar=True,
        help="Where the sidecar serves its pages.",
    ),
    click.option(
        "--ca-file", type=_FILE, help="Authorities that an https sidecar's certificate may be of, PEM."
    ),
    click.option("--client-cert", type=_FILE, help="Certificate to show to a sidecar that wants one, PEM."),
    click.option("--client-key", type=_FILE, help="Its key, if it is not in the same file."),
    click.option("--password-file", type=_FILE, help="Its first line is the password of the URL's user."),
    click.option(
        "--netrc",
        "netrc_file",
        is_flag=False,
        flag_value="",
        metavar="[FILE]",
        help="Take user and password from this file; without a name from $NETRC or ~/.netrc.",
    ),
)


def target_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options; the command gets what they come to as ``target``."""

    @functools.wraps(command)
    def with_target(
        *,
        url: str,
        ca_file: str | None,
        client_cert: str | None,
        client_key: str | None,
        password_file: str | None,
        netrc_file: str | None,
        **others: Any,
    ) -> None:
        target = target_of(
            url,
            ca_file=ca_file,
            client_cert=client_cert,
            client_key=client_key,
            netrc_file=_netrc(netrc_file),
            password_file=None if password_file is None else Path(password_file),
        )
        command(target=target, **others)

    for option in reversed(_OPTIONS):
        with_target = option(with_target)
    return with_target


def _netrc(given: str | None) -> Path | None:
    """The file that ``--netrc`` means; ``None`` without the option."""
    if given is None:
        return None
    return Path(given or os.environ.get("NETRC") or Path.home() / ".netrc")
