-- Removes erased readers, and subtracts them from the days of all readers. It runs
-- before commit.sql, in the same transaction.
with gone as (
    delete from reader_days where reader_id = any ($1::uuid[])
    returning day, sessions, active_ms, progress, long_sessions, ended_sessions
),
gone_hours as (
    delete from reader_hours where reader_id = any ($1::uuid[])
),
fewer as (
    select day, count(*) as readers, sum(sessions) as sessions, sum(active_ms) as active_ms,
        sum(progress) as progress, sum(long_sessions) as long_sessions,
        sum(ended_sessions) as ended_sessions
    from gone
    group by day
),
emptied as (
    delete from days as d using fewer where d.day = fewer.day and d.readers <= fewer.readers
)
update days as d
set readers = d.readers - fewer.readers,
    sessions = d.sessions - fewer.sessions,
    active_ms = d.active_ms - fewer.active_ms,
    progress = d.progress - fewer.progress,
    long_sessions = d.long_sessions - fewer.long_sessions,
    ended_sessions = d.ended_sessions - fewer.ended_sessions
from fewer
where d.day = fewer.day and d.readers > fewer.readers
