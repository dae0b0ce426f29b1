"""joulescope: ask a vLLM server where its joules went.

This module holds the version and nothing else: vLLM's processes execute it when they load the hook.
"""

__version__ = "0.1.0"
