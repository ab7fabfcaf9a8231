"""Scenarios that run, but whose agents are known not to learn: what was measured of keys together.

Unlike what `f2a2_sim.scenario.check` finds, none of this stops a run: somebody may want to see just that.
"""

from __future__ import annotations

from f2a2_sim.scenario.schema import Scenario


def advice(scenario: Scenario) -> list[str]:
    """One sentence for each such combination: its keys and values, what comes of it, what to do."""
    learner, consensus = scenario.learner, scenario.consensus
    found = []
    attends = learner.name == "f2a2_sac" or learner.critic == "attention"
    decay_key = "l2" if learner.critic_l2 is None else "critic_l2"
    decay = learner.l2 if learner.critic_l2 is None else learner.critic_l2
    if attends and decay > 0.0 and consensus.shared == "critic" and consensus.scheme != "none":
        found.append(
            f"learner.{decay_key} = {decay:g} with consensus.shared = critic: most of an agent's copy of an "
            "attention critic has no gradient but this one, and averaging spreads it until all values are 0; "
            "use consensus.shared: attention, or no decay"
        )
    return found
