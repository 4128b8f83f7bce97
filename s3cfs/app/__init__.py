"""The only place that constructs: everything below takes what it needs as an argument and is wired here."""
