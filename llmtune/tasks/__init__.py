"""What a kind of job means: how rows become tensors, what the loss is, and what counts as a prediction."""
