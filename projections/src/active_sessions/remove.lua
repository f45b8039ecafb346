-- Removes entries that are not as the log has them, if they still are as they
-- were seen. KEYS: one key a reader. ARGV: the version seen of each. Returns how
-- many were removed.
local removed = 0
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'version') == ARGV[i] then
        removed = removed + redis.call('DEL', KEYS[i])
    end
end
return removed
