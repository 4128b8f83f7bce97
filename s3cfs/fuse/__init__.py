"""The mount: FUSE requests of the kernel, answered by a Vfs. The only floor that knows errno numbers and pyfuse3."""
