"""From local changes to numbered commits in the store, and back: transactions, commits, uploads, checkpoints, replay, and who may write."""
