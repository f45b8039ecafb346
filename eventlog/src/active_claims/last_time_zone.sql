-- The start of the reader's newest session that is not erased. `->>` cannot fail on NUL
-- here: the index `events_by_reader` has applied it to every start in the log.
select coalesce(started.payload ->> 'time_zone', 'UTC') as "time_zone!"
from events as started
where started.event_type = 'SessionStarted'
    and started.payload ->> 'reader_id' = $1
    and (
        select last.event_type from events as last
        where last.aggregate_id = started.aggregate_id
        order by last.sequence desc
        limit 1
    ) <> 'SessionErased'
order by started.aggregate_id desc
limit 1
