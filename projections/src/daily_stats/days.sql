-- Returns the sums of a reader's days from $2 on, newest first. Also returns the newest
-- day and the two days before it: the session that was active last is on one of them,
-- whatever its time zone.
select day as "day!", sessions as "sessions!", active_ms as "active_ms!",
    progress as "progress!", time_zone as "time_zone!", last_at
from (
    select day, count(*) as sessions, sum(progress)::bigint as progress,
        range_agg(active) as active,
        max(coalesce(ended_at, last_at)) as last_at,
        (array_agg(
            time_zone order by coalesce(ended_at, last_at) desc nulls last, session_id desc
        ))[1] as time_zone
    from session_days
    where reader_id = $1 and not after_end
        and day >= least($2, (
            select max(day) from session_days where reader_id = $1 and not after_end
        ) - 2)
    group by day
) as days
cross join lateral (
    select coalesce(1000 * extract(epoch from sum(upper(range) - lower(range))), 0)::bigint
        as active_ms
    from unnest(active) as range
) as lengths
order by day desc
