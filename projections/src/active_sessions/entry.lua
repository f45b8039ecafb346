-- Precedes the text of every script that reads entries or the projection's key. format.rs
-- describes entries. A write has two arguments: its kind, and a text that begins with the
-- version and, if it concerns one session, the id.
local call, pcall, sub, find, match = redis.call, redis.pcall, string.sub, string.find, string.match

-- The value of a key; '' if it is missing. A key of another type than a string was written
-- by an earlier release. It counts as missing, and the next write replaces it.
local function read(key)
    local text = pcall('GET', key)
    return type(text) == 'string' and text or ''
end

-- The checkpoint of the projection, and when the cache was initialised; nil if it is not.
local function read_projection(key)
    return match(read(key), '^(%d+) (%d+)$')
end

-- The version of an entry or a write; -1 if there is none.
local function version_of(text)
    return tonumber(sub(text, 1, 19)) or -1
end

-- The session id of an entry or a write, 'none', or '' for a tombstone.
local function session_of(text)
    return sub(text, 21, 56)
end

local function put(key, text, ttl)
    call('SET', key, text, 'PX', ttl)
end

local function put_inactive(key, write, ttl)
    put(key, sub(write, 1, 19) .. ' none', ttl)
end

local function put_tombstone(key, write, ttl)
    put(key, sub(write, 1, 19), ttl)
end
