"""Baselines: learners that train all agents in one process, with everything in view."""
