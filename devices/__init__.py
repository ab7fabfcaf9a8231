"""What a machine can do: profiles, compute time, memory, energy, availability.

Knows nothing of learning or of the network. Virtual time only, in seconds; randomness only from
streams that are passed in.
"""
