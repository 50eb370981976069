"""One Docker host: what runs there, what is asked of its Engine, whether a replica is healthy."""
