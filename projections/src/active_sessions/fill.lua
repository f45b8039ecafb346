-- Fills a miss. KEYS: the reader's key. ARGV: TTL in milliseconds, then 'put',
-- version, session id, sequence, start, latest, furthest, active_ms.
-- A tombstone has a version too, so what is over does not come back; one of
-- the fill's own version only says that the session was not here.
local known = tonumber(redis.call('HGET', KEYS[1], 'version') or -1)
if tonumber(ARGV[3]) < known then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'version', ARGV[3], 'id', ARGV[4], 'sequence', ARGV[5],
    'start', ARGV[6], 'latest', ARGV[7], 'furthest', ARGV[8], 'active_ms', ARGV[9])
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
