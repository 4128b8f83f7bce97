"""A backend of the oddest kind, brought in as a third party would: `odd_backend.py` and one line of registry."""
