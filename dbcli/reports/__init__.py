"""Grids, charts, tables and the one-file HTML page. Nothing here loads torch; matplotlib and jinja2 load when used."""
