"""The same agents on real machines: a world's process, agents' processes, and ZeroMQ between them."""
