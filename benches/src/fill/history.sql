-- Writes $2 ended sessions of the reader $1. They start five minutes apart, the last one
-- five minutes ago. As in the service, ids begin with the time of the start.
insert into events (
    aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
)
with sessions as materialized (
    select s,
        format('%s-%s-7%s-8%s-%s', left(time, 8), right(time, 4), left(hash, 3),
            substr(hash, 4, 3), substr(hash, 7, 12)) as id,
        md5((s % 50)::text)::uuid as book_id,
        to_char(started_at, 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as started_at,
        to_char(started_at + interval '60 s', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as ended_at
    from generate_series(1, $2) as s
    cross join lateral (
        select date_trunc('second', now() at time zone 'UTC') - ($2 - s + 1) * interval '5 min',
            md5($1::text || '.' || s)
    ) as starts (started_at, hash)
    cross join lateral (
        select lpad(to_hex((extract(epoch from started_at) * 1000)::bigint), 12, '0')
    ) as times (time)
)
select id, n, 'reading_session',
    case n when 1 then 'SessionStarted' else 'SessionEnded' end,
    case n when 1 then '1' else '3' end,
    case n
        when 1 then format(
            '{"type":"SessionStarted","reader_id":"%s","book_id":"%s","started_at":"%s","position":0,"device_type":"tablet","time_zone":"Europe/Berlin"}',
            $1, book_id, started_at)
        else format(
            '{"type":"SessionEnded","reader_id":"%s","book_id":"%s","reason":"finished","started_at":"%s","ended_at":"%s","elapsed_ms":60000,"start_position":0,"position":5,"intervals":[{"from":"%s","ms":60000}],"active_ms":60000,"furthest_position":5,"time_zone":"Europe/Berlin"}',
            $1, book_id, started_at, ended_at, started_at)
    end::json,
    '{}'
from sessions
cross join generate_series(1, 2) as n
order by s, n
