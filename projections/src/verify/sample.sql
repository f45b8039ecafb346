-- One random event of each of $2 equal parts of the log: its session belongs to the
-- sample. $1 is the global position of the newest event. The CTE is materialized because
-- Postgres cannot use an index for a condition that contains random().
with places as materialized (
    select ((part + random()) * $1::bigint / $2::bigint)::bigint as global_position
    from generate_series(0, $2::bigint - 1) as part
)
select distinct e.aggregate_id as "session_id!"
from places
cross join lateral (
    select aggregate_id from events
    where events.global_position >= places.global_position
    order by events.global_position
    limit 1
) as e
