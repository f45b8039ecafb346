-- One step of the projection. KEYS: the projection's, then one key a reader.
-- ARGV: from, to, TTL and tombstone TTL in milliseconds, then eight a reader:
-- kind, version, session id, sequence, start, latest, furthest, active_ms.
-- Without a checkpoint Redis was emptied; then all of it begins anew.
if redis.call('HGET', KEYS[1], 'checkpoint') ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
    local key, a = KEYS[i], 5 + (i - 2) * 8
    local kind, version = ARGV[a], tonumber(ARGV[a + 1])
    local held = redis.call('HMGET', key, 'version', 'id')
    local known = tonumber(held[1] or -1) or -1
    -- What is not to be shown goes also when it was put meanwhile, by who read the
    -- log as far.
    if version > known or (kind == 'forget' and version == known) then
        if kind == 'put' then
            redis.call('DEL', key)
            redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
                'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
                'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
            redis.call('PEXPIRE', key, ARGV[3])
        elseif kind == 'update' and held[2] == ARGV[a + 2] then
            -- Empty when the latest observation stays what it was.
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
            -- Or an update of a session that is not here: nothing to show, but a
            -- fill that read the log before must come too late.
            redis.call('DEL', key)
            redis.call('HSET', key, 'version', ARGV[a + 1])
            redis.call('PEXPIRE', key, ARGV[4])
        end
    end
end
redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2])
return 1
