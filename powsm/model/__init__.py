"""The S2T network, and finding, loading and extending trained ones."""
