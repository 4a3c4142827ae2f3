"""Processes: start, drain, exit."""
