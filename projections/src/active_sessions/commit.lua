-- Commits a batch of the projection. KEYS: the projection's key, then one key per
-- reader. ARGV: the checkpoints before and after the batch, the TTL of entries and of
-- tombstones in milliseconds, then the kind and the text of one write per reader.
-- Returns 1, or 0 if the checkpoint is not at the start of the batch. A missing
-- checkpoint means that Redis lost its data; the cache is then initialised again.

-- The entry after an update. The text of the update replaces the first two lines. Returns nil if the
-- entry is damaged.
local function updated(entry, write)
    local first = find(entry, '\n', 57, true)
    local second = first and find(entry, '\n', first + 1, true)
    return second and write .. sub(entry, second)
end

-- The entry after a merge. The text of the merge has three lines. An empty line keeps the
-- observation of the entry.
local function merged(entry, write)
    local latest, first, start = match(entry, '\n([^\n]*)\n([^\n]*)(\n.*)', 57)
    if not start then return nil end
    local head, new_latest, new_first = match(write, '^([^\n]*)\n([^\n]*)\n(.*)')
    if new_latest ~= '' then latest = new_latest end
    if new_first ~= '' then first = new_first end
    return head .. '\n' .. latest .. '\n' .. first .. start
end

local checkpoint, begun_at = read_projection(KEYS[1])
if checkpoint ~= ARGV[1] then return 0 end
for i = 2, #KEYS do
    local key, kind, write = KEYS[i], ARGV[2 * i + 1], ARGV[2 * i + 2]
    local entry = read(key)
    local version, current = version_of(write), version_of(entry)
    -- `invalidate` also applies at an equal version: a fill that read the log up to the
    -- same event may have stored the session in the meantime.
    if version > current or (kind == 'invalidate' and version == current) then
        local id, active = session_of(write), session_of(entry)
        local is_same = id == active
        local is_end = kind == 'end' or kind == 'supersede'
        local text
        if kind == 'put' then
            text = write
        elseif kind == 'update' and is_same then
            text = updated(entry, write)
        elseif kind == 'merge' and is_same then
            text = merged(entry, write)
        end
        if text then
            put(key, text, ARGV[3])
        elseif kind == 'none' or (kind == 'end' and (is_same or active == 'none')) then
            put_inactive(key, write, ARGV[3])
        elseif not (is_end and active ~= '' and active ~= 'none' and not is_same) then
            -- `invalidate`, or the session is not stored here. The tombstone rejects a fill
            -- that read the log before this event.
            put_tombstone(key, write, ARGV[4])
        end
        -- The end of another session than the active one changes nothing.
    end
end
call('SET', KEYS[1], ARGV[2] .. ' ' .. begun_at)
return 1
