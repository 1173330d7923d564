"""The data side: account layouts, RPC transport, snapshot rules, poller."""
