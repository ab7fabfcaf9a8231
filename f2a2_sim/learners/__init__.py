"""Learners: fleets of agents that act, remember and learn, without a clock, a socket or a shared memory."""
