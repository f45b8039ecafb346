-- Returns at most $4 events after sequence $3 of session $2. Each session has at least
-- one event, so $4 sessions suffice, plus one because session $2 may have no more.
select global_position, aggregate_id as session_id, events.sequence, event_type, event_version,
    payload::text as "payload!", metadata::text as "metadata!", recorded_at
from (
    select distinct started.aggregate_id
    from events as started
    where started.event_type = 'SessionStarted'
        and started.payload ->> 'reader_id' = $1
        and started.aggregate_id >= $2
        and (
            select last.event_type from events as last
            where last.aggregate_id = started.aggregate_id
            order by last.sequence desc
            limit 1
        ) <> 'SessionErased'
    order by started.aggregate_id
    limit $4::bigint + 1
) as sessions
join events using (aggregate_id)
where (aggregate_id, events.sequence) > ($2, $3)
order by aggregate_id, events.sequence
limit $4
