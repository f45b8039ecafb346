-- Fills cache misses. KEYS: the projection's key, then one key per reader. ARGV: the
-- TTL in milliseconds; the time of the miss and its maximum age, in microseconds; the
-- end of the log when it was read; 1 to detect evicted tombstones, or 0; then the kind
-- and the text of one write per reader, which is a whole entry. Returns the number of
-- stored entries, or -1 if the fill is too late. A fill is too late after the maximum
-- age: the session may have ended since, and its tombstone may have expired. It is also
-- too late if the cache was initialised after the miss, because the projection then
-- skipped events that the fill lacks.
local checkpoint, begun_at = read_projection(KEYS[1])
local now = call('TIME')
local age = now[1] * 1000000 + now[2] - tonumber(ARGV[2])
if not begun_at or tonumber(ARGV[2]) <= tonumber(begun_at) or age < 0 or age > tonumber(ARGV[3]) then
    return -1
end
local head = tonumber(ARGV[4])
checkpoint = tonumber(checkpoint)
local stored = 0
for i = 2, #KEYS do
    local key, write = KEYS[i], ARGV[2 * i + 3]
    local current = version_of(read(key))
    -- The fill contains all events of the reader up to here. A session that is active
    -- may be older than the tombstone of another session, so its own version is not
    -- enough.
    local read_up_to = math.max(head, version_of(write))
    -- Tombstones have a version too, so a fill cannot restore an ended session. A
    -- tombstone up to the end of the log that was read only means that the session had
    -- no entry. A key without a version may have lost its tombstone by eviction. The
    -- projection may have applied later events to it if the checkpoint is beyond the log
    -- that was read; the fill then skips the key.
    local may_be_evicted = ARGV[5] == '1' and current < 0 and checkpoint > read_up_to
    if read_up_to >= current and not may_be_evicted then
        put(key, write, ARGV[1])
        stored = stored + 1
    end
end
return stored
