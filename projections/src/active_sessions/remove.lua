-- Removes entries that differ from the log, unless they have changed since they were
-- read. KEYS: one key per reader. ARGV: the version that was read from each. Returns
-- the number of removed entries.
local removed = 0
for i = 1, #KEYS do
    if redis.call('HGET', KEYS[i], 'version') == ARGV[i] then
        removed = removed + redis.call('DEL', KEYS[i])
    end
end
return removed
