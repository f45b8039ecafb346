-- Fills misses. KEYS: one key a reader. ARGV: TTL in milliseconds, then eight a
-- reader, as for a step: 'put', version, session id, sequence, start, latest,
-- furthest, active_ms. Returns how many were taken.
-- A tombstone has a version too, so what is over does not come back; one of
-- the fill's own version only says that the session was not here.
local taken = 0
for i = 1, #KEYS do
    local key, a = KEYS[i], 2 + (i - 1) * 8
    local known = tonumber(redis.call('HGET', key, 'version') or -1)
    if tonumber(ARGV[a + 1]) >= known then
        redis.call('DEL', key)
        redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
            'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
            'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
        redis.call('PEXPIRE', key, ARGV[1])
        taken = taken + 1
    end
end
return taken
