"""What training makes small: the loss of the task, around which other passes and penalties may stand."""
