"""The `dzagent` command. It knows the HTTP API and files of its own, never the kernel."""
