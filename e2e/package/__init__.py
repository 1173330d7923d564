"""Tests of the package: in trees of the distributions, under a booted systemd, and with real tunnels."""
