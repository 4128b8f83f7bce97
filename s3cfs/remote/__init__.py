"""The one async door to a store; see remote.py."""
from s3cfs.backends.layer import Lane
from s3cfs.remote.patience import Backoff
from s3cfs.remote.remote import Remote, kind_of
from s3cfs.remote.script import Script

__all__ = ["Backoff", "Lane", "Remote", "Script", "kind_of"]
