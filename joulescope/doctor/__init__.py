"""What is wrong with this installation, in plain words, and what mends it.

Needs nothing beyond the standard library to run, so that it works in vLLM's container, where only the hook
is installed, as well as in the sidecar's. Each check looks at one thing and returns what it found; none
changes anything.
"""
