"""Grafana dashboards as code: ``python -m grafana`` writes the JSON files of ``grafana/dashboards``.

Nothing of this is needed to run joulescope or to use the dashboards: their JSON is committed.
"""
