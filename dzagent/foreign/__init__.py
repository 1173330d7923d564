"""The other agent that a host may have, doublezerod: whether it runs, and what it left on disk. Its files are only read."""
