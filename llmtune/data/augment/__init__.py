"""Texts changed at random, anew in every epoch."""
