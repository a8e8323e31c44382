"""llmtune: from raw text to a tested export, with one command."""

__version__ = "0.1.0"
