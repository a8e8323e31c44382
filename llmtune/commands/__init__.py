"""One module for each verb: it composes its config, calls the floors below, and prints."""
