"""Architectures: an LSTM and an MLP of our own, and every encoder and causal model of transformers."""
