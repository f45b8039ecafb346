-- Counts a call in a sliding window, if it may be made.
--
-- The window slides in steps of a sixtieth: a step's calls count until all of
-- them are older than the window. So there are never more than the limit in
-- any window, wherever it begins. One string a client, "step:calls" for each
-- step with calls, oldest first.
--
-- KEYS[1] the client; ARGV[1] calls in a window; ARGV[2] the window in ms.
-- Returns whether the call may be made, how many are left, and in how many
-- milliseconds more are left.
local STEPS = 60
local limit = tonumber(ARGV[1])
local width = tonumber(ARGV[2])
local length = width / STEPS

-- The server's clock: those of the callers differ.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local step = math.floor(now / length)

local steps, calls, used = {}, {}, 0
for s, c in string.gmatch(redis.call('GET', KEYS[1]) or '', '(%d+):(%d+)') do
    s, c = tonumber(s), tonumber(c)
    if s >= step - STEPS then
        steps[#steps + 1], calls[#calls + 1] = s, c
        used = used + c
    end
end

-- When the oldest step that counts does not any more.
local function gone(s)
    return math.max(1, math.ceil((s + STEPS + 1) * length - now))
end

if used < limit then
    if steps[#steps] and steps[#steps] >= step then
        calls[#calls] = calls[#calls] + 1
    else
        steps[#steps + 1], calls[#calls + 1] = step, 1
    end
    local held = {}
    for i = 1, #steps do
        held[i] = string.format('%d:%d', steps[i], calls[i])
    end
    redis.call('SET', KEYS[1], table.concat(held, ' '), 'PX', width + math.ceil(length))
    return { 1, limit - used - 1, gone(steps[1]) }
end

-- When so many are gone that one more may come; more than one must go where
-- the limit was lowered.
local wait = 1
for i = 1, #steps do
    used = used - calls[i]
    wait = gone(steps[i])
    if used < limit then
        break
    end
end
return { 0, 0, wait }
