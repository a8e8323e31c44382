"""Made-up points and sentences for recipes; the sentences are those of scripts/demo_data.py."""
