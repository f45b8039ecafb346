-- Returns at most $4 events after sequence $3 of session $2, and about $5 bytes: the event
-- that exceeds them is the last one, so that a page with a larger event is not empty. Each
-- session has at least one event, so $4 sessions suffice, plus one because session $2 may
-- have no more.
select global_position as "global_position!", session_id as "session_id!",
    sequence as "sequence!", event_type as "event_type!", event_version as "event_version!",
    payload as "payload!", metadata as "metadata!", recorded_at as "recorded_at!"
from (
    select *, sum(octet_length(payload) + octet_length(metadata)) over (
        order by session_id, sequence
        rows between unbounded preceding and 1 preceding
    ) as bytes_before
    from (
        select global_position, aggregate_id as session_id, events.sequence, event_type,
            event_version, payload::text, metadata::text, recorded_at
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
    ) as page
) as page
where coalesce(bytes_before, 0) < $5::bigint
order by session_id, sequence
