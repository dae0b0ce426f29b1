"""The sidecar's process: builds all parts, runs them, and undoes half a start.

Nothing is imported here: commands need a small part of it, such as the rules for labels, and start sooner.
"""
