-- Fills misses. KEYS: the projection's, then one key a reader. ARGV: TTL in
-- milliseconds; when the miss was and how old it may be, in microseconds; where
-- the log ended when it was read, or nothing; then eight a reader, as for a step: 'put' or 'none', version, session id, sequence,
-- start, latest, furthest, active_ms. Returns how many were taken, and -1 when
-- they come too late: what was read then may be over, and its tombstone too. So
-- may it be when the cache was begun since, which passed over what it had not.
local begun = redis.call('HGET', KEYS[1], 'begun_at')
local now = redis.call('TIME')
local age = now[1] * 1000000 + now[2] - tonumber(ARGV[2])
if not begun or tonumber(ARGV[2]) <= tonumber(begun) or age < 0 or age > tonumber(ARGV[3]) then
    return -1
end
-- A tombstone has a version too, so what is over does not come back; one of
-- the fill's own version only says that the session was not here.
-- Where there is none, it may have been evicted; then nothing is known of what
-- the projection has applied since the log was read.
local head = tonumber(ARGV[4])
local beyond = head and tonumber(redis.call('HGET', KEYS[1], 'checkpoint')) > head
local taken = 0
for i = 2, #KEYS do
    local key, a = KEYS[i], 5 + (i - 2) * 8
    local known = tonumber(redis.call('HGET', key, 'version') or -1) or -1
    if tonumber(ARGV[a + 1]) >= known and not (beyond and known < 0) then
        redis.call('DEL', key)
        if ARGV[a] == 'none' then
            redis.call('HSET', key, 'version', ARGV[a + 1], 'none', 1)
        else
            redis.call('HSET', key, 'version', ARGV[a + 1], 'id', ARGV[a + 2],
                'sequence', ARGV[a + 3], 'start', ARGV[a + 4], 'latest', ARGV[a + 5],
                'furthest', ARGV[a + 6], 'active_ms', ARGV[a + 7])
        end
        redis.call('PEXPIRE', key, ARGV[1])
        taken = taken + 1
    end
end
return taken
