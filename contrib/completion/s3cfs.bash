# bash completion of s3cfs; made by contrib/completion/generate.py
_s3cfs() {
    local cur=${COMP_WORDS[COMP_CWORD]} words
    if [ "$COMP_CWORD" -eq 1 ]; then
        mapfile -t COMPREPLY < <(compgen -W "mkfs mount umount fsck verify migrate import stat ctl probe ipfs zdb debug help version" -- "$cur")
        return
    fi
    case ${COMP_WORDS[1]} in
        mkfs) words="--help --label --plain --authfile --backend-options --datastore-spec --passphrase-fd --quiet --json" ;;
        mount) words="--help -o --cachedir --cachesize --compress --sync --commit-interval --max-lag --journal-size --allow-other --fg --read-only --no-writeback --sole-writer --takeover --set-aside --expect-commit --log-file --log-level --metrics-address --loop --nonempty --authfile --backend-options --datastore-spec --passphrase-fd" ;;
        umount) words="--help --lazy --quiet --json" ;;
        fsck) words="--help --repair --full --quick --no-cache --cachedir --sole-writer --authfile --backend-options --datastore-spec --passphrase-fd --quiet --json" ;;
        verify) words="--help --data --keyless --sample --restart --missing-file --corrupt-file --parallel --cachedir --authfile --backend-options --datastore-spec --passphrase-fd --quiet --json" ;;
        migrate) words="--help --dry-run --follow --interval --unmounted --verify --no-list --re-encrypt --label --plain --source-options --target-options --parallel --cachedir --authfile --datastore-spec --passphrase-fd --quiet --json" ;;
        import) words="--help --into --dry-run --s3ql-authfile --s3ql-passphrase-fd --s3ql-options --s3ql-cache --last-snapshot --find-metadata --probe-depth --label --plain --cachedir --cachesize --compress --commit-interval --journal-size --sole-writer --takeover --authfile --backend-options --datastore-spec --passphrase-fd --quiet --json" ;;
        stat) words="--help --json" ;;
        ctl) words="--help flush drop-cache log-level consistency checker layer" ;;
        probe) words="--help --takeover --large --hours --rate --traffic --object --report --authfile --backend-options --datastore-spec --passphrase-fd --quiet --json" ;;
        ipfs) words="--help spec roots export gc" ;;
        zdb) words="--help status check repair reclaim backup restore" ;;
        debug) words="--help dump" ;;
        help) words="--help" ;;
        version) words="--help --json" ;;
        *) words= ;;
    esac
    if [ "${COMP_WORDS[1]}" = help ]; then words="mkfs mount umount fsck verify migrate import stat ctl probe ipfs zdb debug help version"; fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur"; compgen -d -- "$cur")
}
complete -o filenames -F _s3cfs s3cfs
