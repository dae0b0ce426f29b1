"""Servers without a hook: what their own ``/metrics`` pages tell of a whole run, never of a request."""
