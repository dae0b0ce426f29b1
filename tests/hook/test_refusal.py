"""What the engine's log says where the socket is shut to it; real users meet it in tests/real."""

from __future__ import annotations

import os
from pathlib import Path

from joulescope.hook.link import Link
from joulescope.hook.refusal import advice


def test_the_advice_names_both_sides_and_the_group(tmp_path: Path) -> None:
    """Who this process is, whose the socket is, and the line that mends it in Kubernetes."""
    path = tmp_path / "js.sock"
    path.touch()
    path.chmod(0o640)
    text, group = advice(str(path)), os.stat(path).st_gid
    assert f"uid {os.geteuid()}, groups " in text
    assert f"(uid {os.stat(path).st_uid}, group {group}, mode 0640)" in text
    assert f"securityContext.supplementalGroups: [{group}]" in text


def test_a_folder_that_cannot_be_entered(tmp_path: Path) -> None:
    """Then nothing is known of the socket, and the folder is what is named."""
    assert advice(f"{tmp_path}/none/js.sock").startswith(f"the folder {tmp_path}/none cannot be entered")


def test_a_sidecar_that_is_not_there_yet_is_no_refusal(tmp_path: Path) -> None:
    """It may come at any time: nothing is to be mended, and the log stays silent."""
    link = Link(str(tmp_path / "js.sock"))
    assert not link.connect(0)
    assert not link.refused
    assert link.complaint() == ""


def test_it_complains_once(tmp_path: Path) -> None:
    """However often it is refused."""
    link = Link(str(tmp_path / "js.sock"))
    link.refused = True
    assert link.complaint()
    assert link.complaint() == ""
