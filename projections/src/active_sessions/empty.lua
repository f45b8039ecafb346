-- Empties a cache that is to be begun, some keys at a time. KEYS: the
-- checkpoint. ARGV: the checkpoint that is no good, empty when there is none;
-- that to begin at; a cursor, 0 at first, and how many keys to look at. Returns
-- the next cursor, 0 at the end, and nothing when somebody else has begun it.
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] then return false end
local page = redis.call('SCAN', ARGV[3], 'MATCH', 'reading_session:active:*', 'COUNT', ARGV[4])
if #page[2] > 0 then redis.call('UNLINK', unpack(page[2])) end
if page[1] == '0' then redis.call('SET', KEYS[1], ARGV[2]) end
return page[1]
