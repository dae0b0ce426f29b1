"""Joules of a query where no meter is: throughput, node power and overheads, by Monte Carlo."""
