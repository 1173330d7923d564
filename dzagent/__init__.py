"""Keeps a host's DoubleZero tunnels equal to what the ledger says."""

__version__ = "0.1.0"
