-- Counts a reader's sessions and their events that are not overwritten: erased
-- sessions if $2 is true, otherwise all others. Sessions are found by their start.
-- This is complete, because an erasure overwrites the start of a session last.
select count(*) as "sessions!", coalesce(sum(session.events), 0)::bigint as "events!"
from (
    select distinct aggregate_id from events
    where event_type = 'SessionStarted' and payload ->> 'reader_id' = $1
) as started
cross join lateral (
    select
        (array_agg(event_type order by sequence desc))[1] as last,
        count(*) filter (where event_type <> 'SessionErased') as events
    from events
    where aggregate_id = started.aggregate_id
) as session
where (session.last = 'SessionErased') = $2
