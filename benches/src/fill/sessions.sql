-- Writes $3 sessions with $2 events each. Ids and readers are hashes of the name $1, with
-- the version and variant of random UUIDs: the service maps a token's UUID of version 5 to
-- another reader.
-- Positions repeatedly run through the book.
insert into events (
    aggregate_id, sequence, aggregate_type, event_type, event_version, payload, metadata
)
with steps as materialized (
    select n,
        to_char(moment - ($2 - n) * interval '30 s', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as at,
        to_char(moment - ($2 - n + 1) * interval '30 s', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"') as previous_at
    from generate_series(1, $2) as n
    cross join (select now() at time zone 'UTC') as times (moment)
),
sessions as materialized (
    select s, overlay(overlay(hash placing '4' from 13) placing '8' from 17)::uuid as reader_id,
        md5(s::text)::uuid as book_id,
        format('%s-%s-7%s-8%s-%s', left(time, 8), right(time, 4), left(hash, 3),
            substr(hash, 4, 3), substr(hash, 7, 12)) as id
    from (select s, md5($1 || '.' || s) as hash from generate_series(1, $3) as s) as hashes
    cross join (
        select lpad(to_hex((extract(epoch from now()) * 1000)::bigint), 12, '0')
    ) as times (time)
)
select sessions.id, n, 'reading_session',
    case n when 1 then 'SessionStarted' else 'PositionUpdated' end,
    case n when 1 then '1' else '2' end,
    case n
        when 1 then format(
            '{"type":"SessionStarted","reader_id":"%s","book_id":"%s","started_at":"%s","position":0,"device_type":"tablet","time_zone":"Europe/Berlin","locator":"epubcfi(/6/14!/4/2/14:%s)"}',
            reader_id, book_id, at, n)
        else format(
            '{"type":"PositionUpdated","reader_id":"%s","occurred_at":"%s","position":%s,"locator":"epubcfi(/6/14!/4/2/14:%s)","applied":true,"intervals":[{"from":"%s","ms":30000}],"active_ms":%s,"furthest_position":%s,"time_zone":"Europe/Berlin"}',
            reader_id, at, (n - 1) % 100, n, previous_at, 30000 * (n - 1),
            least(n - 1, 99))
    end::json,
    '{"traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
from steps
cross join sessions
order by n, s
