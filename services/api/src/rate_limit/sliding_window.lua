-- Counts requests in a sliding window, and the bytes that readers store. A request
-- counts only if its limit allows it.
--
-- The window moves in steps of a sixtieth of its width. The requests of a step count
-- until all of them are older than the window, so no window contains more requests
-- than the limit, wherever it starts.
--
-- Redis stores one string per client, with an entry for each step that has requests,
-- oldest first. An entry contains the number of the step, and the total of requests
-- from the creation of the string to the end of that step. The first entry no longer
-- counts; its total is subtracted from the others.
--
-- The bytes are one counter per reader, which expires one period after its first byte.
--
-- KEYS: the client of each request; the counter of each of the first requests, which
-- store bytes or have a budget; the counters of other readers.
-- ARGV: the width of the window and the period of the budget, both in milliseconds; the
-- budget; the number of requests, and of those with a counter; then one number per key:
-- the limit of a client, or the bytes to add to a counter.
-- Returns one string with four big-endian 64-bit numbers per request: 1 if it is allowed,
-- else 0; the remaining requests; the milliseconds until more requests are allowed; the
-- milliseconds until the budget renews, 0 if it is not used up or there is no counter.
local call, pack, unpack = redis.call, struct.pack, struct.unpack
local ceil, max, sub = math.ceil, math.max, string.sub

local STEPS = 60
local ENTRY, SIZE = '>I6I6', 12
local NONE = pack(ENTRY, 0, 0)
local width, period, budget = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local requests, counters = tonumber(ARGV[4]), tonumber(ARGV[5])
local length = width / STEPS
local expiry = width + ceil(length)

-- The clock of Redis, because the clocks of API processes differ.
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step = math.floor(now / length)

-- Milliseconds until a step no longer counts.
local function expires_in(s)
    return max(1, ceil((s + STEPS + 1) * length - now))
end

local function count(key, limit)
    local entries = call('GET', key) or NONE
    -- The first entry that counts, and the total before it.
    local _, before = unpack(ENTRY, entries)
    local first, last = SIZE + 1, #entries
    while first < last do
        local s, calls = unpack(ENTRY, entries, first)
        if s >= step - STEPS then
            break
        end
        before, first = calls, first + SIZE
    end
    local newest, calls = unpack(ENTRY, entries, last - SIZE + 1)

    if calls - before < limit then
        if newest >= step then
            last = last - SIZE
        else
            newest = step
        end
        entries = sub(entries, first - SIZE, last) .. pack(ENTRY, newest, calls + 1)
        call('SET', key, entries, 'PX', expiry)
        return 1, limit - (calls + 1 - before), expires_in((unpack(ENTRY, entries, SIZE + 1)))
    end

    -- Wait until enough steps have expired to allow one more request. A limit that was
    -- lowered may require several.
    local wait = 1
    for at = first, last, SIZE do
        local s, total = unpack(ENTRY, entries, at)
        wait = expires_in(s)
        if calls - total < limit then
            break
        end
    end
    return 0, 0, wait
end

-- Adds bytes to a counter. Returns the milliseconds until it expires if it has reached
-- the budget, else 0.
local function store(key, bytes)
    local total
    if bytes > 0 then
        total = call('INCRBY', key, bytes)
        if total == bytes then
            call('PEXPIRE', key, period)
        end
    else
        total = tonumber(call('GET', key) or 0)
    end
    if total < budget then
        return 0
    end
    return max(1, call('PTTL', key))
end

-- The argument of the key with this index.
local function argument(i)
    return tonumber(ARGV[5 + i])
end

local counted = {}
for i = 1, requests do
    local allowed, remaining, reset = count(KEYS[i], argument(i))
    local renews = 0
    if i <= counters then
        renews = store(KEYS[requests + i], argument(requests + i))
    end
    counted[i] = pack('>I8I8I8I8', allowed, remaining, reset, renews)
end
for i = requests + counters + 1, #KEYS do
    store(KEYS[i], argument(i))
end
return table.concat(counted)
