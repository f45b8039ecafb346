-- A join with the array lets Postgres skip the partitions of other sessions. `= any ($1)`
-- would not.
select e.global_position, e.aggregate_id as session_id, e.sequence, e.event_type, e.event_version,
    e.payload::text as "payload!", e.metadata::text as "metadata!", e.recorded_at
from unnest($1::text[]) as wanted (session_id)
join events as e on e.aggregate_id = wanted.session_id and e.sequence = 1
order by e.global_position
