"""joulescope beside the vLLM of a Kubernetes manifest: put in, kept up to date, taken out.

``pod``: what is added to a pod, as data. ``engine``: which container is vLLM. ``patch``: a pod template with
it, and without. ``kinds``: where a document has pod templates. ``documents``: YAML in and out, with all that
people wrote in it.
"""

from joulescope.inject.pod import Injection, Resources

__all__ = ["Injection", "Resources"]
