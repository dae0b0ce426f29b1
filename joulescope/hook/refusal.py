"""What to say, once, where the sidecar's socket is there and this process may not write to it."""

from __future__ import annotations

import os


def advice(path: str) -> str:
    """Who is who, and what mends it, in a sentence for the engine's log; raises nothing."""
    here = f"uid {os.geteuid()}, groups {', '.join(map(str, sorted({os.getegid(), *os.getgroups()})))}"
    try:
        found = os.stat(path)
    except OSError as error:
        folder = os.path.dirname(path)
        return f"the folder {folder} cannot be entered by this process ({here}): {error.strerror or error}"
    mode, group = found.st_mode & 0o777, found.st_gid
    return (
        f"this process ({here}) may not write to the socket {path} (uid {found.st_uid}, group {group}, mode "
        f"{mode:04o}). Give it the supplementary group {group}, in Kubernetes by the pod's "
        f"securityContext.supplementalGroups: [{group}], or set socket_mode of the sidecar. Nothing is "
        "reported until then; it is tried again"
    )
