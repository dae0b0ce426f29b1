"""The link between nodes: TLS with certificates both ways, frames of records, and clocks held side by side.

A relay on a worker node connects, the head's sidecar listens. What is accounted is accounted at the head.
"""
