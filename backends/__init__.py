"""Object stores. `base` is the contract; a file a store; wrappers (faulty, recorder) have the same interface.

This folder is imported as `s3cfs.backends`, through a symbolic link, and under no other name: two copies of one
module would have two copies of every exception class, and `except NotFound` would miss half of them.
"""

if __name__ != "s3cfs.backends":
    raise ImportError(f"this package is s3cfs.backends, not {__name__}: import it under that name")
