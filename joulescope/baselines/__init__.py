"""Baselines as files: what the work of an engine used to cost, kept over restarts and upgrades."""
