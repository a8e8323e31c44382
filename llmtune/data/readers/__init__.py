"""Files to columns: one module a format. What every reader does with bytes and texts stands in stream.py and columns.py."""
