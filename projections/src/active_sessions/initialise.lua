-- Removes all entries, some keys per call, and then initialises the cache. KEYS: the
-- projection's key. ARGV: the invalid checkpoint, or an empty string if there is none;
-- the checkpoint to start from; the SCAN cursor, initially 0; the number of keys to
-- scan. Returns the next cursor, or 0 at the end. Returns false if another process
-- has initialised the cache. Until the end there is no checkpoint, so no worker
-- writes. A projection's key of another type than a string belongs to an earlier
-- release. Processes of that release cannot use the cache afterwards.
if (read_projection(KEYS[1]) or '') ~= ARGV[1] then return false end
call('UNLINK', KEYS[1])
local page = call('SCAN', ARGV[3], 'MATCH', 'reading_session:active:*', 'COUNT', ARGV[4])
if #page[2] > 0 then call('UNLINK', unpack(page[2])) end
if page[1] == '0' then
    local now = call('TIME')
    call('SET', KEYS[1], string.format('%s %d', ARGV[2], now[1] * 1000000 + now[2]))
end
return page[1]
