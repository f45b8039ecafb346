-- Removes all entries, some keys per call, and then initialises the cache. KEYS: the
-- projection's key. ARGV: the invalid checkpoint, or an empty string if there is none;
-- the checkpoint to start from; the SCAN cursor, initially 0; the number of keys to
-- scan. Returns the next cursor, or 0 at the end. Returns false if another process
-- has initialised the cache. Until the end there is no checkpoint, so no worker
-- writes.
local checkpoint = redis.call('HGET', KEYS[1], 'checkpoint') or ''
if checkpoint ~= ARGV[1] then return false end
if checkpoint ~= '' then redis.call('DEL', KEYS[1]) end
local page = redis.call('SCAN', ARGV[3], 'MATCH', 'reading_session:active:*', 'COUNT', ARGV[4])
if #page[2] > 0 then redis.call('UNLINK', unpack(page[2])) end
if page[1] == '0' then
    local now = redis.call('TIME')
    redis.call('HSET', KEYS[1], 'checkpoint', ARGV[2],
        'begun_at', string.format('%d', now[1] * 1000000 + now[2]))
end
return page[1]
