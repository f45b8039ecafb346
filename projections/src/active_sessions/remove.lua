-- Removes entries that differ from the log, unless they have changed since they were
-- read. KEYS: one key per reader. ARGV: the text that was read from each. Returns the
-- number of removed entries.
local removed = 0
for i = 1, #KEYS do
    if read(KEYS[i]) == ARGV[i] then removed = removed + call('UNLINK', KEYS[i]) end
end
return removed
