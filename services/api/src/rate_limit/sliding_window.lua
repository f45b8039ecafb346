-- Counts calls in a sliding window, each if it may be made.
--
-- The window slides in steps of a sixtieth: a step's calls count until all of
-- them are older than the window. So there are never more than the limit in
-- any window, wherever it begins. One string a client: for each step with calls,
-- oldest first, its number and how many calls there were up to its end, since
-- the string was begun. The first entry has none that count; it says what is to
-- be taken off.
--
-- KEYS: the client of each call. ARGV: the window in ms, then for each call how
-- many may be made in a window. Returns for each, in one string of 64-bit numbers,
-- big end first: 1 when it may be made, how many are left, and in how many
-- milliseconds more are left.
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local ceil, max, sub = math.ceil, math.max, string.sub

local STEPS = 60
local ENTRY, SIZE = '>I6I6', 12
local NONE = pack(ENTRY, 0, 0)
local width = tonumber(ARGV[1])
local length = width / STEPS
local expiry = width + ceil(length)

-- The server's clock: those of the callers differ.
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step = math.floor(now / length)

-- When a step does not count any more.
local function gone(s)
    return max(1, ceil((s + STEPS + 1) * length - now))
end

local function count(key, limit)
    local held = call('GET', key) or NONE
    -- The first that counts, and what came before it.
    local _, before = unpack(ENTRY, held)
    local first, last = SIZE + 1, #held
    while first < last do
        local s, calls = unpack(ENTRY, held, first)
        if s >= step - STEPS then
            break
        end
        before, first = calls, first + SIZE
    end
    local newest, calls = unpack(ENTRY, held, last - SIZE + 1)

    if calls - before < limit then
        if newest >= step then
            last = last - SIZE
        else
            newest = step
        end
        held = sub(held, first - SIZE, last) .. pack(ENTRY, newest, calls + 1)
        call('SET', key, held, 'PX', expiry)
        return 1, limit - (calls + 1 - before), gone((unpack(ENTRY, held, SIZE + 1)))
    end

    -- When so many are gone that one more may come; more than one must go where
    -- the limit was lowered.
    local wait = 1
    for at = first, last, SIZE do
        local s, upto = unpack(ENTRY, held, at)
        wait = gone(s)
        if calls - upto < limit then
            break
        end
    end
    return 0, 0, wait
end

local counted = {}
for i = 1, #KEYS do
    counted[i] = pack('>I8I8I8', count(KEYS[i], tonumber(ARGV[i + 1])))
end
return table.concat(counted)
