"""The rows: where they come from, how they are split, tokenized, stored and dealt into batches."""
