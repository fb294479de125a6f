"""Measurements of a served model of proteins."""
