"""What goes over SSH and is no vendor's: the connection, host keys, the lock, the head, the registrar's client."""
