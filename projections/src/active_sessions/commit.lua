-- Commits a batch of the projection. KEYS: the projection's key, then one key per
-- reader. ARGV: the checkpoints before and after the batch, the TTL of entries and of
-- tombstones in milliseconds, then nine values per reader.
-- Returns 1, or 0 if the checkpoint is not at the start of the batch. A missing
-- checkpoint means that Redis lost its data; the cache is then initialised again.
if redis.call('HGET', KEYS[1], 'checkpoint') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
    local key, a = KEYS[i], 5 + (i - 2) * 9
    local kind, version = ARGV[a], tonumber(ARGV[a + 1])
    local entry = redis.call('HMGET', key, 'version', 'id', 'none')
    local current = tonumber(entry[1] or -1) or -1
    local id, is_inactive = entry[2], entry[3]
    local is_same = id == ARGV[a + 2]
    local is_end = kind == 'end' or kind == 'supersede'
    -- `invalidate` also applies at an equal version: a fill that read the log up to the
    -- same event may have stored the session in the meantime.
    if version > current or (kind == 'invalidate' and version == current) then
        if kind == 'put' then
            put(key, a, ARGV[3])
        elseif kind == 'update' and is_same then
            redis.call('HSET', key, 'version', ARGV[a + 1], 'sequence', ARGV[a + 3],
                'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
            -- Empty if the latest observation is unchanged.
            if ARGV[a + 5] ~= '' then redis.call('HSET', key, 'latest', ARGV[a + 5]) end
            if ARGV[a + 8] ~= '' then redis.call('HSET', key, 'first', ARGV[a + 8]) end
            redis.call('PEXPIRE', key, ARGV[3])
        elseif kind == 'none' or (kind == 'end' and (is_same or is_inactive)) then
            put_inactive(key, a, ARGV[3])
        elseif not (is_end and id and not is_same) then
            -- `invalidate`, or the session is not stored here. The tombstone rejects a fill
            -- that read the log before this event.
            put_tombstone(key, a, ARGV[4])
        end
        -- The end of another session than the active one changes nothing.
    end
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2])
return 1
