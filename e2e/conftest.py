"""Fixtures of the end-to-end tests. Outside the lab everything that needs it is skipped, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from e2e.lab.topology import Network, build_network

if TYPE_CHECKING:
    from e2e.lab.world import World

INSIDE = os.environ.get("LAB_INSIDE")


@pytest.fixture(scope="session")
def network() -> Network:
    """The namespaces of the lab; this process runs in the agent's host."""
    if INSIDE is None:
        why = os.environ.get("LAB_MISSING", "the lab is not around this process: run `make e2e`")
        pytest.skip(f"NOT TESTED on a real kernel: {why}")
    return build_network()


@pytest.fixture(scope="session")
def started(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The whole system, running; the same for all tests, because it takes time to start."""
    from e2e.lab.world import World

    root: Path = tmp_path_factory.mktemp("world")
    running = World.start(network, root)
    yield running
    running.stop()


@pytest.fixture
def world(started: World) -> World:
    """The whole system with an enabled agent and no user."""
    started.reset()
    return started
