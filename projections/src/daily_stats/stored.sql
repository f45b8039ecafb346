-- Returns all rows of the sessions $1, and all rows of the readers' days ($2, $3). Any day
-- of the sessions $4 can change, so it also returns the other rows of all their days. The
-- array of row addresses makes each row occur once, without a join whose plan
-- depends on statistics: a new table has none.
with reader_days as (
    select reader_id, day
    from unnest($2::uuid[], $3::date[]) as r (reader_id, day)
    union
    select reader_id, day
    from session_days
    where session_id = any ($4::text[])
)
select session_id, day, reader_id, time_zone, last_at, position, ended_at, end_position,
    end_position_at, start_position, progress, ended, after_end, complete_to,
    multirange_send(active) as "active!"
from session_days
where session_days.ctid = any (array(
    select ctid
    from session_days
    where session_id = any ($1::text[])
    union all
    select d.ctid
    from reader_days
    join session_days as d using (reader_id, day)
))
