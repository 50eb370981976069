"""What an operator looks at between applies: logs, usage, events, reasons. Nothing of an apply imports it."""
