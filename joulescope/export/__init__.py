"""Hands the snapshot and the finished requests to the outside: Prometheus, OTLP, JSONL."""
