"""Alerts: what is raised, told to people. `step` decides what is news, `box` keeps what is not delivered yet, one file
a way (command, webhook, mail) delivers, and the `Teller` is what the monitor's loop calls."""
