"""The Kustomize component that adds a ledger, applied by kubectl behind the one that adds joulescope."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from joulescope.config.load import load
from tests.requirements import need_program
from tools.kustomize import FOLDER

pytestmark = pytest.mark.real

CLAIM = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: any}
spec:
  template:
    spec:
      volumes:
        - name: joulescope-ledger
          emptyDir: null
          persistentVolumeClaim: {claimName: joules}
"""


def built(folder: Path, *patches: str) -> dict[str, Any]:
    """The pod of the example with both components."""
    shutil.copytree(FOLDER, folder / "kustomize")
    place = folder / "kustomize/examples/deployment"
    mine = yaml.safe_load((place / "kustomization.yaml").read_text())
    mine["components"].append("../../component-ledger")
    mine["patches"] = [{"patch": each, "target": {"kind": "Deployment"}} for each in patches]
    (place / "kustomization.yaml").write_text(yaml.safe_dump(mine))
    command = [need_program("kubectl"), "kustomize", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pod: dict[str, Any] = yaml.safe_load(done.stdout)["spec"]["template"]["spec"]
    return pod


def test_the_ledger_is_kept_on_a_volume_with_a_limit(tmp_path: Path) -> None:
    """Beside all that was there: the root stays read-only, and the sidecar takes the settings."""
    pod = built(tmp_path)
    (sidecar,) = (each for each in pod["initContainers"] if each["name"] == "joulescope")
    assert sidecar["securityContext"]["readOnlyRootFilesystem"] is True
    (folder,) = (each["mountPath"] for each in sidecar["volumeMounts"] if each["name"] == "joulescope-ledger")
    assert "/run/joulescope" in [each["mountPath"] for each in sidecar["volumeMounts"]]
    told = {each["name"]: each["value"] for each in sidecar["env"] if "LEDGER" in each["name"]}
    assert load({}, told)[0].ledger == folder
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert volumes["joulescope-ledger"]["emptyDir"] == {"sizeLimit": "2Gi"}
    assert int(told["JOULESCOPE_LEDGER_MAX_MEBIBYTES"]) == 0.75 * 2048


def test_a_claim_takes_the_place_of_the_volume(tmp_path: Path) -> None:
    """By the patch of the README."""
    assert "emptyDir: null" in (FOLDER / "README.md").read_text()
    volumes = {each["name"]: each for each in built(tmp_path, CLAIM)["volumes"]}
    assert volumes["joulescope-ledger"] == {
        "name": "joulescope-ledger",
        "persistentVolumeClaim": {"claimName": "joules"},
    }
