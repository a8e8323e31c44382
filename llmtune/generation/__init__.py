"""Texts that causal models write: prompts to token ids, tokens one by one, and back to text."""
