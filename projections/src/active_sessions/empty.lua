-- Empties a cache that is to be begun, some keys at a time, and then begins it.
-- KEYS: the projection's. ARGV: the checkpoint that is no good, empty when there
-- is none; that to begin at; a cursor, 0 at first, and how many keys to look at.
-- Returns the next cursor, 0 at the end, and nothing when somebody else has
-- begun it. Meanwhile there is no checkpoint, and so nobody writes.
local at = redis.call('HGET', KEYS[1], 'checkpoint') or ''
if at ~= ARGV[1] then return false end
if at ~= '' then redis.call('DEL', KEYS[1]) end
local page = redis.call('SCAN', ARGV[3], 'MATCH', 'reading_session:active:*', 'COUNT', ARGV[4])
if #page[2] > 0 then redis.call('UNLINK', unpack(page[2])) end
if page[1] == '0' then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2],
        'begun_at', string.format('%d', now[1] * 1000000 + now[2]))
end
return page[1]
