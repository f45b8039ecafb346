-- Removes an entry that is older than a version, and leaves a tombstone. KEYS: a
-- reader's. ARGV: the version, and the tombstone's TTL in milliseconds.
if tonumber(redis.call('HGET', KEYS[1], 'version') or -1) < tonumber(ARGV[1]) then
    redis.call('DEL', KEYS[1])
    redis.call('HSET', KEYS[1], 'version', ARGV[1])
    redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
