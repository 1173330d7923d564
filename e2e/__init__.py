"""End-to-end tests, the lab they run in, and the demo."""
