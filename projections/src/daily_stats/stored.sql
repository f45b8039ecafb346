-- Returns all rows of the sessions $1, and all rows of the readers' days ($2, $3). The
-- sessions $4 can lose rows or active time, so it also returns the other rows of all their
-- days.
with reader_days as (
    select reader_id, day
    from unnest($2::uuid[], $3::date[]) as r (reader_id, day)
    union
    select reader_id, day
    from session_days
    where session_id = any ($4::text[])
),
found as (
    select d.*
    from reader_days
    join session_days as d using (reader_id, day)
    union all
    select d.*
    from session_days as d
    where d.session_id = any ($1::text[])
        and not exists (
            select from reader_days as r where r.reader_id = d.reader_id and r.day = d.day
        )
)
select session_id as "session_id!", day as "day!", reader_id as "reader_id!",
    time_zone as "time_zone!", last_at, position, ended_at, end_position, start_position,
    progress as "progress!", ended as "ended!",
    active_from as "active_from!", active_to as "active_to!"
from found
cross join lateral (
    select
        coalesce(array_agg(lower(range)), '{}') as active_from,
        coalesce(array_agg(upper(range)), '{}') as active_to
    from unnest(active) as range
) as bounds
