"""Texts made uniform, and rows left out or flagged, before anything is learned from them."""
