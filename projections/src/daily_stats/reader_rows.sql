-- Returns a reader's rows of the days that days.sql returns, newest day first.
select session_id, day, time_zone, progress, coalesce(ended_at, last_at) as last_at,
    multirange_send(active) as "active!"
from session_days
where reader_id = $1 and not after_end
    and day >= least($2, (
            select max(day) from session_days where reader_id = $1 and not after_end
        ) - 2)
order by day desc, session_id
