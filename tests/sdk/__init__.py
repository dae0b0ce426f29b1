"""Tests of the SDK, with which engines other than vLLM report."""
