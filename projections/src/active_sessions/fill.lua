-- Fills cache misses. KEYS: the projection's key, then one key per reader. ARGV: the
-- TTL in milliseconds; the time of the miss and its maximum age, in microseconds; the
-- end of the log at the time of the read, or an empty string; then eight values per
-- reader: 'put' or 'none', version, session id, sequence, start, latest, furthest,
-- active_ms. Returns the number of stored entries, or -1 if the fill is too late. A
-- fill is too late after the maximum age: the session may have ended since, and its
-- tombstone may have expired. It is also too late if the cache was initialised after
-- the miss, because the projection then skipped events that the fill lacks.
local begun = redis.call('HGET', KEYS[1], 'begun_at')
local now = redis.call('TIME')
local age = now[1] * 1000000 + now[2] - tonumber(ARGV[2])
if not begun or tonumber(ARGV[2]) <= tonumber(begun) or age < 0 or age > tonumber(ARGV[3]) then
    return -1
end
-- Tombstones have a version too, so a fill cannot restore an ended session. A
-- tombstone with the fill's own version only means that the session had no entry.
-- A key without a version may have lost its tombstone by eviction. The projection may
-- have applied later events to it if the checkpoint is beyond the log that was read;
-- the fill then skips the key.
local head = tonumber(ARGV[4])
local beyond = head and tonumber(redis.call('HGET', KEYS[1], 'checkpoint')) > head
local stored = 0
for i = 2, #KEYS do
    local key, a = KEYS[i], 5 + (i - 2) * 8
    local current = tonumber(redis.call('HGET', key, 'version') or -1) or -1
    if tonumber(ARGV[a + 1]) >= current and not (beyond and current < 0) then
        redis.call('DEL', key)
        if ARGV[a] == 'none' then
            redis.call('HSET', key, 'version', ARGV[a + 1], 'none', 1)
        else
            redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
                'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
                'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
        end
        redis.call('PEXPIRE', key, ARGV[1])
        stored = stored + 1
    end
end
return stored
