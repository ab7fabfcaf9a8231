"""Learners whose critics see everybody's observations and actions."""
