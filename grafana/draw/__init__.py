"""Draws the dashboards with Grafana's own components, from a simulated recording: ``make pictures``."""
