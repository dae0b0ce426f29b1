"""Multipliers: how much the facility adds, how dirty the grid is, what a joule costs.

They stand beside the joules and never in them. Whoever wants grams or money multiplies, and sees by what.
"""
