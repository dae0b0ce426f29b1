"""Divides measured joules among requests: pure functions and state, no I/O."""
