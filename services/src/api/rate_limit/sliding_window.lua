-- Counts a call in a sliding window, if it may be made.
--
-- Two counters, of this window and of the one before, which weighs as much as
-- the sliding window still covers of it: as if its calls had been spread
-- evenly. (Cloudflare, "How we built rate limiting capable of scaling to
-- millions of domains", 2017.) One string a client: "window:before:now".
--
-- KEYS[1] the client; ARGV[1] calls in a window; ARGV[2] the window in ms.
-- Returns whether the call may be made, how many are left, and in how many
-- milliseconds more are left.
local limit = tonumber(ARGV[1])
local width = tonumber(ARGV[2])

-- The server's clock: those of the callers differ.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local window = math.floor(now / width)
local elapsed = now - window * width

local before, count = 0, 0
local held = redis.call('GET', KEYS[1])
if held then
    local of, b, c = string.match(held, '^(%d+):(%d+):(%d+)$')
    of = tonumber(of)
    if of == window then
        before, count = tonumber(b), tonumber(c)
    elseif of == window - 1 then
        before = tonumber(c)
    end
end

local used = before * (width - elapsed) / width + count
if used + 1 <= limit then
    redis.call(
        'SET', KEYS[1], string.format('%d:%d:%d', window, before, count + 1),
        'PX', 2 * width
    )
    return { 1, math.floor(limit - used - 1), width - elapsed }
end

-- The moment at which `used` is one below the limit: in this window, while the
-- one before fades, or in the next, while this one does.
local wait
if count <= limit - 1 then
    wait = width * (1 - (limit - 1 - count) / before) - elapsed
else
    wait = width - elapsed + width * (1 - (limit - 1) / count)
end
return { 0, 0, math.max(1, math.ceil(wait)) }
