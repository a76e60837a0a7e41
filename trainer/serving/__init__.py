"""The server: HTTP, batching, metrics, settings, its page."""
