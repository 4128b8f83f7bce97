"""`python -m s3cfs` is `s3cfs`."""
import sys

from s3cfs.cli import main

sys.exit(main())
