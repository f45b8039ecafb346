-- Fills cache misses. KEYS: the projection's key, then one key per reader. ARGV: the
-- TTL in milliseconds; the time of the miss and its maximum age, in microseconds; the
-- end of the log when it was read; 1 to detect evicted tombstones, or 0; then nine
-- values per reader, of the kind 'put' or 'none'. Returns the number of stored entries,
-- or -1 if the fill is too late. A fill is too late after the maximum age: the session
-- may have ended since, and its tombstone may have expired. It is also too late if the
-- cache was initialised after the miss, because the projection then skipped events that
-- the fill lacks.
local projection = redis.call('HMGET', KEYS[1], 'begun_at', 'checkpoint')
local begun = projection[1]
local now = redis.call('TIME')
local age = now[1] * 1000000 + now[2] - tonumber(ARGV[2])
if not begun or tonumber(ARGV[2]) <= tonumber(begun) or age < 0 or age > tonumber(ARGV[3]) then
    return -1
end
local head, checkpoint = tonumber(ARGV[4]), tonumber(projection[2])
local stored = 0
for i = 2, #KEYS do
    local key, a = KEYS[i], 6 + (i - 2) * 9
    local current = tonumber(redis.call('HGET', key, 'version') or -1) or -1
    -- The fill contains all events of the reader up to here. A session that is active
    -- may be older than the tombstone of another session, so its own version is not
    -- enough.
    local read_up_to = math.max(head, tonumber(ARGV[a + 1]))
    -- Tombstones have a version too, so a fill cannot restore an ended session. A
    -- tombstone up to the end of the log that was read only means that the session had
    -- no entry. A key without a version may have lost its tombstone by eviction. The
    -- projection may have applied later events to it if the checkpoint is beyond the log
    -- that was read; the fill then skips the key.
    local may_be_evicted = ARGV[5] == '1' and current < 0 and checkpoint > read_up_to
    if read_up_to >= current and not may_be_evicted then
        if ARGV[a] == 'none' then
            put_inactive(key, a, ARGV[1])
        else
            put(key, a, ARGV[1])
        end
        stored = stored + 1
    end
end
return stored
