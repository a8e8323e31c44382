"""One loop for every task, tuning and device; what happens between its steps; and what a run leaves on disk."""
