"""For stores whose answers may be old: a lock that keeps the operations on each key apart, a checker that watches what comes of them."""
