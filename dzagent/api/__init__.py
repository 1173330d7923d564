"""The HTTP API: reads what dzagentd publishes, writes what a person wants. No capability, no kernel, no ledger."""
