"""What only a server needs: HTTP, batching, metrics, settings, its page."""
