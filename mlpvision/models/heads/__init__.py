"""Heads for dense tasks, on the maps of `pyramid.Pyramid`."""
