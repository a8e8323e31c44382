"""Made-up points for the regression recipes."""
