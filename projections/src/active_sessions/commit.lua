-- Commits a batch of the projection. KEYS: the projection's key, then one key per
-- reader. ARGV: the checkpoints before and after the batch, the TTL of entries and of
-- tombstones in milliseconds, then eight values per reader: kind, version, session
-- id, sequence, start, latest, furthest, active_ms.
-- Returns 1, or 0 if the checkpoint is not at the start of the batch. A missing
-- checkpoint means that Redis lost its data; the cache is then initialised again.
if redis.call('HGET', KEYS[1], 'checkpoint') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
    local key, a = KEYS[i], 5 + (i - 2) * 8
    local kind, version = ARGV[a], tonumber(ARGV[a + 1])
    local entry = redis.call('HMGET', key, 'version', 'id')
    local current = tonumber(entry[1] or -1) or -1
    -- `invalidate` also applies at an equal version: a fill that read the log up to the
    -- same event may have stored the session in the meantime.
    if version > current or (kind == 'invalidate' and version == current) then
        if kind == 'put' then
            redis.call('DEL', key)
            redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
                'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
                'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
            redis.call('PEXPIRE', key, ARGV[3])
        elseif kind == 'update' and entry[2] == ARGV[a + 2] then
            -- `latest` is empty if the latest observation is unchanged.
            if ARGV[a + 5] == '' then
                redis.call('HSET', key, 'version', ARGV[a + 1], 'sequence', ARGV[a + 3],
                    'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
            else
                redis.call('HSET', key, 'version', ARGV[a + 1], 'sequence', ARGV[a + 3],
                    'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7], 'latest', ARGV[a + 5])
            end
            redis.call('PEXPIRE', key, ARGV[3])
        elseif kind == 'none' then
            redis.call('DEL', key)
            redis.call('HSET', key, 'version', ARGV[a + 1], 'none', 1)
            redis.call('PEXPIRE', key, ARGV[3])
        else
            -- `invalidate`, or an update of a session that is not stored here. The tombstone
            -- rejects a fill that read the log before this event.
            redis.call('DEL', key)
            redis.call('HSET', key, 'version', ARGV[a + 1])
            redis.call('PEXPIRE', key, ARGV[4])
        end
    end
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2])
return 1
