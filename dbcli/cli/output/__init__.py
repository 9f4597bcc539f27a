"""Results of workflows in words and tables, and the same as JSON."""
