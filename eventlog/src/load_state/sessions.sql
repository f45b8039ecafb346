-- Three events are a session: its first, its last, and the last that says where
-- the reader is, since what an event says is absolute. They may be the same. An
-- observation that came late, and moved nothing, says that it is not `applied`. That
-- is found in the text, since Postgres's text cannot hold a NUL and JSON's can; in a
-- string a quote never stands without its backslash.
select e.global_position as "global_position!", wanted.session_id as "session_id!",
    e.sequence as "sequence!", e.event_type as "event_type!", e.event_version as "event_version!",
    e.payload::text as "payload!", e.metadata::text as "metadata!", e.recorded_at as "recorded_at!"
from unnest($1::text[], $2::bigint[]) as wanted (session_id, most)
cross join lateral (
    select * from events
    where aggregate_id = wanted.session_id and events.sequence <= wanted.most
    order by events.sequence desc
    limit 1
) as last
cross join lateral (
    (
        select * from events
        where aggregate_id = wanted.session_id and events.sequence = 1 and last.sequence > 1
    )
    union all
    (
        select * from events
        where aggregate_id = wanted.session_id and events.sequence < last.sequence
            and last.payload::text ~ '"applied"\s*:\s*false'
            and payload::text !~ '"applied"\s*:\s*false'
        order by events.sequence desc
        limit 1
    )
    union all
    select last.*
) as e
order by wanted.session_id, e.sequence
