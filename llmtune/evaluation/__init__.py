"""How good a model is: metrics, predictions, reports."""
