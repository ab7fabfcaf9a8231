"""Training the baselines from the command line: settings, curves, checkpoints, a display.

A baseline is a plain training loop in one process.  It has no devices, no network and no virtual time: those
are of `f2a2_sim.simulator`.
"""
