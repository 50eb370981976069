"""What the monitor sees, for Zabbix 6.0 and newer: a template it imports, and the values of one check.

One item holds a check as one JSON document; everything else depends on it. `values` makes the document, `template` the
file (of `parts`, by the tables in `things`), `sender` takes the document to a server or proxy.
"""
