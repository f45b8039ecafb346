-- Removes entries that are not as the log has them, if they still are as they
-- were seen. KEYS: one key a reader. ARGV: tombstone TTL in milliseconds, then
-- two a reader: the version seen, and that of the tombstone. Returns how many.
local removed = 0
for i = 1, #KEYS do
    local seen, version = ARGV[2 * i], ARGV[2 * i + 1]
    if redis.call('HGET', KEYS[i], 'version') == seen then
        redis.call('DEL', KEYS[i])
        redis.call('HSET', KEYS[i], 'version', version)
        redis.call('PEXPIRE', KEYS[i], ARGV[1])
        removed = removed + 1
    end
end
return removed
