-- Leaves a tombstone after an erasure. KEYS: the reader's key. ARGV: the TTL in
-- milliseconds, the kind of the write, and the end of the log after the erasure. An entry
-- that is newer belongs to a later session and stays. Returns 1.
local current = tonumber(redis.call('HGET', KEYS[1], 'version') or -1) or -1
if current <= tonumber(ARGV[3]) then put_tombstone(KEYS[1], 2, ARGV[1]) end
return 1
