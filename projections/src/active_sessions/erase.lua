-- Leaves a tombstone after an erasure. KEYS: the reader's key. ARGV: the TTL in
-- milliseconds, the kind of the write, and its text with the end of the log after the
-- erasure. An entry that is newer belongs to a later session and stays. Returns 1.
if version_of(read(KEYS[1])) <= version_of(ARGV[3]) then
    put_tombstone(KEYS[1], ARGV[3], ARGV[1])
end
return 1
