select d.day, d.sessions, d.active_ms, d.progress, d.time_zone,
    h.hours as "hours!", h.sessions as "hour_sessions!", h.active_ms as "hour_active_ms!"
from reader_days as d
cross join lateral (
    select
        coalesce(array_agg(hour order by hour), '{}') as hours,
        coalesce(array_agg(sessions order by hour), '{}') as sessions,
        coalesce(array_agg(active_ms order by hour), '{}') as active_ms
    from reader_hours
    where reader_id = $1 and day = d.day
) as h
where d.reader_id = $1
    and d.day >= least($2, (select max(day) from reader_days where reader_id = $1))
order by d.day desc
