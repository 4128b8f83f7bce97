"""Every bound in one place, the unit in its name. What a user may set has its default here too."""
from __future__ import annotations

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

# names and attributes (Linux's own limits)
NAME_MAX_BYTES = 255
SYMLINK_MAX_BYTES = 4095
XATTR_NAME_MAX_BYTES = 255
XATTR_VALUE_MAX_BYTES = 65536
LINK_MAX = 2**31 - 1
FILE_MAX_BYTES = 2**62

# content
INLINE_MAX_BYTES = 512             # a file up to this size lives in its inode row
CHUNK_MIN_BYTES = 128 * KIB
CHUNK_AVG_BYTES = 512 * KIB
CHUNK_MAX_BYTES = 2 * MIB          # also the largest overlay chunk
PACK_TARGET_BYTES = 16 * MIB       # a journal pack is closed at the first chunk that takes it past this
PACK_MAX_BYTES = 64 * MIB

# writing
DIRTY_POOL_BYTES = 96 * MIB        # dirty file data in RAM, staged ones included; beyond it writers wait or data is spooled
STAGE_RUN_BYTES = 8 * MIB          # a contiguous dirty run of this size is staged while its file is still open
STAGE_OPEN_FILE_S = 30.0           # dirty data of a file that stays open is staged after this
OVERLAY_RUN_MAX_BYTES = 64 * KIB   # runs shorter than this inside existing data go into one overlay chunk
TRANSACTION_INTERVAL_S = 1.0
COMMIT_INTERVAL_S = 5.0            # default of --commit-interval
SHORT_SYNC_S = 0.0005              # an fsync expected to take less is not worth a thread
FRESH_FILE_GRACE_S = 0.2           # a transaction waits so long for a just created file to be closed
JOURNAL_MAX_BYTES = 10 * GIB       # not yet in the store; beyond it writers wait, then ENOSPC
WRITER_WAIT_S = 30.0               # how long a writer waits for room before ENOSPC
DISK_RESERVE_BYTES = 96 * MIB      # ballast: free space below which no operation starts
UPLOADS_AT_ONCE = 3                # each holds one pack in memory
DOWNLOADS_AT_ONCE = 8

# reading
DECODED_CACHE_BYTES = 64 * MIB
CACHE_BYTES = 10 * GIB             # default of --cachesize: sealed packs on disk
FETCH_ALIGN_BYTES = 64 * KIB
FETCH_MAX_BYTES = 8 * MIB          # one ranged GET
NEIGHBOURHOOD_BYTES = 2 * MIB
READAHEAD_MAX_BYTES = 32 * MIB

# metadata
OUTBOX_MAX_BYTES = 128 * MIB           # uncompressed changesets waiting for one record; beyond it writers wait
CHECKPOINT_MIN_LOG_BYTES = 1 * MIB     # a checkpoint is not worth it below this
CHECKPOINT_LOG_RATIO = 0.25            # of the size of the last checkpoint
CHECKPOINT_MAX_SEGMENTS = 500
CHECKPOINT_PART_BYTES = 8 * MIB        # uncompressed

# who may write (facts: metadata.md)
TAKEOVER_SILENCE_S = 30.0
RELEASE_AFTER_IDLE_S = 60.0

# the store
STORE_TIMEOUT_S = 20.0
STORE_DEADLINE_S = 120.0           # the retry wrapper gives up on one call after this

# kernel
ENTRY_TIMEOUT_S = 3600.0
ATTR_TIMEOUT_S = 3600.0
READ_AHEAD_KIB = 4096
