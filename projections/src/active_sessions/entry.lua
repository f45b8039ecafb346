-- Shared by commit.lua, erase.lua and fill.lua, which follow this text. Nine arguments per reader,
-- of which the first has the index `a`, describe a write: kind, version, session id,
-- sequence, start, latest, furthest, active_ms, and the first observation, which is
-- empty if it is the start.
local function put(key, a, ttl)
    redis.call('DEL', key)
    redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
        'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
        'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
    if ARGV[a + 8] ~= '' then redis.call('HSET', key, 'first', ARGV[a + 8]) end
    redis.call('PEXPIRE', key, ttl)
end

local function put_inactive(key, a, ttl)
    redis.call('DEL', key)
    redis.call('HSET', key, 'version', ARGV[a + 1], 'none', 1)
    redis.call('PEXPIRE', key, ttl)
end

local function put_tombstone(key, a, ttl)
    redis.call('DEL', key)
    redis.call('HSET', key, 'version', ARGV[a + 1])
    redis.call('PEXPIRE', key, ttl)
end
