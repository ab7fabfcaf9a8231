"""Scenarios: their schema, how they are loaded from YAML, and whether they can run."""
