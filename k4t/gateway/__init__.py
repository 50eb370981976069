"""External gateways as seen from the master: drivers, and how a host becomes one."""
