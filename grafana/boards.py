"""All dashboards, in the order in which one reads them."""

from __future__ import annotations

from grafana.cost import COST
from grafana.efficiency import EFFICIENCY
from grafana.engine import ENGINE
from grafana.fleet import FLEET
from grafana.requests import REQUESTS

BOARDS = (FLEET, ENGINE, REQUESTS, EFFICIENCY, COST)
